"""Signs that a torch model's figure flatters it: masked gradients, beside the checks of its logits (`edge.validity`).

The failures that Carlini et al. (2019), Tramèr et al. (2020) and the flags of AutoAttack look for, each a number with
the threshold above or below which it fires.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from compress.attacks import judge, losses
from compress.attacks.apgd import ascend
from compress.attacks.contract import Model, Task, image_random_start
from compress.attacks.ensemble_outcomes import EnsembleResult
from compress.attacks.pgd import gradient_at
from compress.attacks.presets import gradient_free, users
from compress.networks.graph.onnx_twin import OnnxClassifier
from compress.numerics import precision
from compress.quantization.quantizer import Quantizer
from edge.attacks.checks import wrong
from edge.runtimes.runner import at_batch_sizes
from edge.validity import rules
from edge.validity.logits import (
    AskLogits,
    chance_check,
    logits_checks,
    rounding_of,
    sampled,
    unit_images,
    validity_check,
)
from edge.validity.rules import ValidityCheck, record_checks

ZERO_SHARE = 0.05
EXPLODING = 2000.0  # logits across the ball; honest networks stay in the hundreds
RISING_SHARE = 0.8
STEPS = 10  # of APGD, to see whether its loss rises
SAMPLE = 256  # of an evaluation, whose attacks take far longer
BRIEF_SAMPLE = 64  # where a figure takes one short attack


def validity_checks(
    model: Model,
    images: np.ndarray,
    labels: np.ndarray,
    result: EnsembleResult,
    *,
    batch_size: int = 128,
    device: "str | torch.device" = "cpu",
    sample: int = SAMPLE,
) -> list[ValidityCheck]:
    """Every check of the model that `result` is about, on at most `sample` of its images, uint8 or float32 (N,C,H,W).

    Attacks without gradients are compared with the others on all images, where both kinds ran.
    """
    return [
        *network_checks(
            model,
            images,
            labels,
            result.right,
            eps=result.eps,
            norm=result.norm,
            seed=result.seed,
            batch_size=batch_size,
            device=device,
            sample=sample,
        ),
        chance_check(int(result.right.sum()), labels, result.predictions),
        *outcome_checks(result),
    ]


def network_checks(
    model: Model,
    images: np.ndarray,
    labels: np.ndarray,
    right: np.ndarray,
    *,
    eps: float,
    norm: str = "linf",
    seed: int = 0,
    batch_size: int = 128,
    device: "str | torch.device" = "cpu",
    sample: int = BRIEF_SAMPLE,
) -> list[ValidityCheck]:
    """The checks of logits, and of gradients on at most `sample` images, uint8 or float32 (N,C,H,W), evenly spread.

    Gradients are asked where attacks begin: on images that are `right`, bool (N,), on all where none is. A graph that
    a runtime executes has none: there the loss must rise by random steps. The network stays as it was.
    """
    ask = asked_in_calls(model, batch_size, device)
    with precision.full():
        with _other_sizes(model, device) as at_sizes:
            found = logits_checks(ask, images, at_sizes=at_sizes, rounding=_rounding(model))
        pool = np.flatnonzero(right) if right.any() else np.arange(len(right))
        chosen = pool[sampled(len(pool), sample)]
        x, y = unit_images(images[chosen]), labels[chosen]
        if isinstance(model, OnnxClassifier):
            return [*found, _rising_at_random(ask, x, y, eps, norm)]
        batches = []
        for begin in range(0, len(x), batch_size):
            part = slice(begin, begin + batch_size)
            y_here = torch.from_numpy(y[part].astype(np.int64)).to(device)
            batches.append(Task(model, torch.from_numpy(x[part]).to(device), y_here, chosen[part], eps, norm, seed))
        return [*found, *_gradients(batches), _rising(batches)]


def measured_checks(
    model: Model,
    images: np.ndarray,
    labels: np.ndarray,
    measured: Mapping[str, Any],
    *,
    eps: float,
    of: str,
    batch_size: int = 128,
    device: "str | torch.device" = "cpu",
    outcome: Sequence[ValidityCheck] = (),
) -> dict[str, Any]:
    """{"chance", "checks"} for the metrics of a stage whose model is right on `measured["clean"]` of these images.

    What fired is told once, `of` what. `outcome`: checks of the attacks that measured it. `chance`: the share of the
    largest class, which a constant classifier is right on.
    """
    few = sampled(len(labels), BRIEF_SAMPLE)
    logits = asked_in_calls(model, batch_size, device)(unit_images(images[few]))
    found = network_checks(
        model,
        images[few],
        labels[few],
        ~wrong(logits, labels[few]),
        eps=eps,
        batch_size=batch_size,
        device=device,
    )
    chance = chance_check(round(measured["clean"] * len(labels)), labels, logits.argmax(1))
    return {"chance": chance.value, "checks": record_checks([*found, chance, *outcome], of)}


def asked_in_calls(model: Model, size: int, device: "str | torch.device" = "cpu") -> AskLogits:
    """Logits of a torch model, `size` images a call."""

    def ask(x: np.ndarray) -> np.ndarray:
        parts = torch.from_numpy(np.ascontiguousarray(x)).split(size)
        return np.concatenate([judge.checked_logits(model, part.to(device)) for part in parts])

    return ask


@contextlib.contextmanager
def _other_sizes(model: Model, device: "str | torch.device") -> "Iterator[dict[int, AskLogits]]":
    """The model asked alone; a graph's runner fills its calls up, so it is opened anew for calls of one image."""
    if not isinstance(model, OnnxClassifier):
        yield {1: asked_in_calls(model, 1, device)}
        return
    with at_batch_sizes(model.runner, (1,)) as by_size:
        yield {size: _with_logits(model, infer) for size, infer in by_size.items()}


def _with_logits(model: OnnxClassifier, infer: AskLogits) -> AskLogits:
    return lambda x: model.logits(torch.from_numpy(infer(x))).numpy()


def _rounding(model: Model) -> float:
    """Fake quantizers turn rounding into steps of their grid."""
    quantized = isinstance(model, torch.nn.Module) and any(isinstance(part, Quantizer) for part in model.modules())
    return rounding_of("int8" if quantized or isinstance(model, OnnxClassifier) else "float32")


def _gradients(batches: list[Task]) -> Iterator[ValidityCheck]:
    """Input gradients: of the cross-entropy exactly 0, or of the margin larger than any honest slope."""
    zero = np.concatenate([_size(task, losses.cross_entropy(task.y)) == 0 for task in batches])
    yield validity_check(
        rules.ZERO,
        float(zero.mean()),
        ZERO_SHARE,
        len(zero),
        f"the input gradient of the cross-entropy is exactly 0 on {int(zero.sum())} of {len(zero)} images",
        "gradient attacks are blind there; attack a differentiable stand-in (BPDA) or divide the logits",
    )
    slopes = np.concatenate([task.eps * _size(task, losses.margin(task.y)) for task in batches])
    slope = float(np.minimum(np.nan_to_num(np.median(slopes), nan=np.inf), np.finfo(np.float32).max))
    endless = int((~np.isfinite(slopes)).sum())
    yield validity_check(
        rules.EXPLODING,
        slope,
        EXPLODING,
        len(slopes),
        f"across the ball the margin's slope is {slope:.4g} logits (median), on {endless} images it is not finite",
        "softmax saturates and gradients are lost to rounding; divide the logits by a constant",
        fired=slope > EXPLODING or endless > 0,
    )


def _size(task: Task, loss: losses.ImageLoss) -> np.ndarray:
    """The gradient's dual norm: how fast the loss can rise with the distance, in the attack's norm. float64 (B,)."""
    if not judge.differentiable(task.model, task.x[:1]):
        return np.zeros(len(task.x))
    gradient = gradient_at(task.model, task.x, loss).gradient.flatten(1).double()
    size: Tensor = gradient.abs().sum(1) if task.norm == "linf" else gradient.square().sum(1).sqrt()
    return size.cpu().numpy()


def _rising(batches: list[Task]) -> ValidityCheck:
    """On how many images the best loss on the way is above that at the random start."""
    risen = []
    for task in batches:
        if not judge.differentiable(task.model, task.x[:1]):
            risen.append(np.zeros(len(task.x), bool))
            continue
        trace = ascend(
            task.model,
            task.x,
            losses.cross_entropy(task.y),
            start=image_random_start(task, "validity", 0),
            y=task.y,
            eps=task.eps,
            norm=task.norm,
            steps=STEPS,
        )
        risen.append((trace.losses.amax(0) > trace.losses[0]).cpu().numpy())
    return _climbing(
        np.concatenate(risen),
        f"{STEPS} steps of APGD raised the cross-entropy",
        "the attack does not climb, so its failure says nothing",
    )


def _rising_at_random(ask: AskLogits, x: np.ndarray, y: np.ndarray, eps: float, norm: str) -> ValidityCheck:
    """On how many images the margin at one of `STEPS` random corners of the ball is below that at the image itself.

    Random search follows the margin: one-hot and saturated answers show it nothing, and it fails on any network.
    """
    draws = np.random.default_rng(0)
    size = eps if norm == "linf" else eps / np.sqrt(x[:1].size)
    start = judge.margins(ask(x), y)
    fallen = np.zeros(len(x), bool)
    for _ in range(STEPS):
        step = np.where(draws.random(x.shape) < 0.5, -size, size)
        fallen |= judge.margins(ask(np.clip(x + step, 0, 1).astype(np.float32)), y) > start
    return _climbing(
        fallen,
        f"{STEPS} random steps lowered the margin",
        "the answers (one-hot, saturated?) show random search no way, so its failure says nothing",
    )


def _climbing(moved: "npt.NDArray[np.bool_]", what: str, advice: str) -> ValidityCheck:
    """Whether an attack gets anywhere: on how many images (N,) it `moved` what it follows."""
    share = float(moved.mean())
    seen = f"{what} on {share:.1%} of images"
    return validity_check(rules.RISING, share, RISING_SHARE, len(moved), seen, advice, fired=share < RISING_SHARE)


def outcome_checks(result: EnsembleResult) -> Iterator[ValidityCheck]:
    """Images that fall to attacks without gradients and to no other, though every attack with gradients tried."""
    names = [column.name for column in result.columns]
    free = np.array([gradient_free(name) for name in names])
    own = np.array([users(name) for name in names])  # a user's may use gradients or not: it only takes images away
    with_gradients = ~free & ~own
    if not free.any() or not with_gradients.any():
        return
    tried = result.tried[with_gradients].all(0)
    alone = int((tried & result.broken[free].any(0) & ~result.broken[~free].any(0)).sum())
    threshold = rules.free_threshold(len(tried))
    yield validity_check(
        rules.FREE,
        alone,
        threshold,
        len(tried),
        f"{alone} of {len(tried)} images fall to attacks without gradients and to no attack with them",
        "gradients are masked; give the gradient-free attacks more queries and attack a differentiable stand-in",
    )
