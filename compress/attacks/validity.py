"""Signs that an ensemble's figure flatters the model: masked gradients, randomness, outputs that are no logits.

The failures that Carlini et al. (2019), Tramèr et al. (2020) and the flags of AutoAttack look for, each a number with
the threshold above or below which it fires.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from compress.attacks import judge, losses
from compress.attacks.apgd import ascend
from compress.attacks.contract import Model, Task, image_random_start
from compress.attacks.ensemble import distributions
from compress.attacks.ensemble_outcomes import EnsembleResult
from compress.attacks.pgd import gradient_at
from compress.attacks.presets import gradient_free, users
from compress.numerics import precision

ROUNDING = 1e-4  # of an image's spread of logits: what the order of a sum may change
ZERO_SHARE = 0.05
EXPLODING = 2000.0  # logits across the ball; honest networks stay in the hundreds
RISING_SHARE = 0.8
FREE_POINTS, FREE_IMAGES = 0.002, 3  # more than the larger of these, by attacks without gradients alone
STEPS = 10  # of APGD, to see whether its loss rises


@dataclass(frozen=True)
class ValidityCheck:
    """`fired` says that the robust accuracy is not to be trusted as it stands; `text` what was seen and what to do."""

    name: str
    fired: bool
    value: float
    threshold: float
    text: str


def validity_checks(
    model: Model,
    images: np.ndarray,
    labels: np.ndarray,
    result: EnsembleResult,
    *,
    batch_size: int = 128,
    device: "str | torch.device" = "cpu",
    sample: int = 256,
) -> list[ValidityCheck]:
    """Every check of the model that `result` is about, on at most `sample` of its images, uint8 or float32 (N,C,H,W).

    Images that are right when clean, evenly spread; of all where none is right. Attacks without gradients are compared
    with the others on all images, where both kinds ran.
    """
    pool = np.flatnonzero(result.right) if result.right.any() else np.arange(len(labels))
    chosen = pool[np.linspace(0, len(pool) - 1, min(sample, len(pool))).astype(np.int64)]
    batches = []
    for begin in range(0, len(chosen), batch_size):
        index = chosen[begin : begin + batch_size]
        x = images[index].astype(np.float32) / np.float32(255) if images.dtype == np.uint8 else images[index]
        y = torch.from_numpy(labels[index].astype(np.int64)).to(device)
        x_here = torch.from_numpy(x).to(device)
        batches.append(Task(model, x_here, y, index, result.eps, result.norm, result.seed))
    with precision.full():
        return [*_repeated(batches), _probabilities(batches), *_gradients(batches), _rising(batches), *_free(result)]


def _answers(batches: list[Task]) -> np.ndarray:
    return np.concatenate([judge.checked_logits(task.model, task.x) for task in batches])


def _repeated(batches: list[Task]) -> Iterator[ValidityCheck]:
    """Whether a second call on the same batches gives other logits, and other classes."""
    first, second = _answers(batches), _answers(batches)
    spread = first.max(1) - first.min(1)
    moved = float((np.abs(second - first).max(1) > ROUNDING * spread).mean())
    yield _checked(
        "randomised model",
        moved > 0,
        moved,
        0.0,
        f"two calls on the same {len(first)} images gave {moved:.1%} of them other logits",
        "use the plan rand, which averages over draws",
    )
    differ = int((first.argmax(1) != second.argmax(1)).sum())
    yield _checked(
        "predictions differ between calls",
        differ > 0,
        differ,
        0.0,
        f"two calls on the same {len(first)} clean images named another class for {differ}",
        "an accuracy of one call is a matter of luck; make the model deterministic",
    )


def _probabilities(batches: list[Task]) -> ValidityCheck:
    answers = _answers(batches)
    share = float(np.mean([distributions(row) for row in answers[:, None]]))
    return _checked(
        "probabilities in place of logits",
        share == 1,
        share,
        1.0,
        f"outputs lie in [0, 1] and sum to 1 on {share:.1%} of images",
        "attack the logits before the softmax",
    )


def _gradients(batches: list[Task]) -> Iterator[ValidityCheck]:
    """Input gradients: of the cross-entropy exactly 0, or of the margin larger than any honest slope."""
    zero = np.concatenate([_size(task, losses.cross_entropy(task.y)) == 0 for task in batches])
    yield _checked(
        "zero gradients",
        bool(zero.mean() > ZERO_SHARE),
        float(zero.mean()),
        ZERO_SHARE,
        f"the input gradient of the cross-entropy is exactly 0 on {int(zero.sum())} of {len(zero)} images",
        "gradient attacks are blind there; attack a differentiable stand-in (BPDA) or divide the logits",
    )
    slopes = np.concatenate([task.eps * _size(task, losses.margin(task.y)) for task in batches])
    slope = float(np.minimum(np.nan_to_num(np.median(slopes), nan=np.inf), np.finfo(np.float32).max))
    endless = int((~np.isfinite(slopes)).sum())
    yield _checked(
        "exploding gradients",
        slope > EXPLODING or endless > 0,
        slope,
        EXPLODING,
        f"across the ball the margin's slope is {slope:.4g} logits (median), on {endless} images it is not finite",
        "softmax saturates and gradients are lost to rounding; divide the logits by a constant",
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
    share = float(np.concatenate(risen).mean())
    return _checked(
        "loss not rising",
        share < RISING_SHARE,
        share,
        RISING_SHARE,
        f"{STEPS} steps of APGD raised the cross-entropy on {share:.1%} of images",
        "the attack does not climb, so its failure says nothing",
    )


def _free(result: EnsembleResult) -> Iterator[ValidityCheck]:
    """Images that fall to attacks without gradients and to no other, though every attack with gradients tried."""
    names = [column.name for column in result.columns]
    free = np.array([gradient_free(name) for name in names])
    own = np.array([users(name) for name in names])  # a user's may use gradients or not: it only takes images away
    with_gradients = ~free & ~own
    if not free.any() or not with_gradients.any():
        return
    tried = result.tried[with_gradients].all(0)
    alone = int((tried & result.broken[free].any(0) & ~result.broken[~free].any(0)).sum())
    threshold = max(FREE_POINTS * len(tried), FREE_IMAGES)
    yield _checked(
        "attacks without gradients win",
        alone > threshold,
        alone,
        threshold,
        f"{alone} of {len(tried)} images fall to attacks without gradients and to no attack with them",
        "gradients are masked; give the gradient-free attacks more queries and attack a differentiable stand-in",
    )


def _checked(name: str, fired: bool, value: float, threshold: float, seen: str, advice: str) -> ValidityCheck:
    return ValidityCheck(name, fired, value, threshold, f"{seen}: {advice}" if fired else seen)
