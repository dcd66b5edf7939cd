"""The teacher's check: clean and robust accuracy on held-out images, and why they differ from what was published."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compress.attacks import ensemble, presets, validity
from compress.attacks.pgd import accuracy, robust_accuracy
from compress.data.split import Split
from compress.networks.base import Classifier, Normalize
from compress.networks.graph.onnx_twin import OnnxClassifier
from compress.zoo.catalog import NORMALIZATIONS, CatalogEntry
from edge.attacks.square import square
from edge.core.errors import CompressError
from edge.core.proportions import clopper_pearson

GAP = 0.02  # published and measured accuracy may differ by this much without an explanation
EXPLAINED = 0.01  # what closes the gap to this is named as its cause
BLOCK_EDGES = 1.05  # grey-level steps across 8×8 block edges this much larger than elsewhere: JPEG coding

Model = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class TeacherCheck:
    """How a teacher is checked: eps as written, PGD steps (or Square queries where there are no gradients)."""

    attack: str  # pgd, or ensemble
    eps: str
    radius: float
    steps: int
    queries: int
    batch_size: int
    seed: int


def measure_teacher(model: Classifier, split: Split, check: TeacherCheck, of: str) -> dict[str, Any]:
    """{"test", "chance", "checks"} for the metrics of an imported teacher; a check that fired is told, `of` what.

    "test": {"n", "clean", "robust", "attack", "steps", "eps", "interval"}; the interval is of `robust`, 95 %, exact.
    """
    n, outcome = len(split.labels), []
    clean = accuracy(model, split, check.batch_size)
    images, labels = split.images.cpu().numpy(), split.labels.cpu().numpy()
    eps, seed, size, where = check.radius, check.seed, check.batch_size, split.images.device
    if isinstance(model, OnnxClassifier):  # no gradients: random search on the 8-bit grid, which gives an upper bound
        attacked = square(
            lambda x: _logits(model, torch.from_numpy(x)),
            images,
            labels,
            eps=eps,
            queries=check.queries,
            seed=seed,
            batch_size=size,
        )
        robust, how = float((~attacked.broken).mean()), ("square", check.queries)
    elif check.attack == "ensemble":  # the worst case over it
        plan = presets.attack_plan("standard", _logits(model, split.images[:1]).shape[1])
        result = ensemble.evaluate(model, images, labels, plan, eps=eps, seed=seed, batch_size=size, device=where)
        robust, how = result.total.bounds[0], ("ensemble", 0)
        outcome = list(validity.outcome_checks(result))
    else:
        robust = robust_accuracy(model, split, size, eps=eps, steps=check.steps, seed=seed)
        how = ("pgd", check.steps)
    low, high = clopper_pearson(round(robust * n), n)
    measured = {"n": n, "clean": clean, "robust": robust, "attack": how[0], "steps": how[1], "eps": check.eps}
    checks = validity.measured_checks(
        model,
        images,
        labels,
        measured,
        eps=eps,
        of=of,
        batch_size=size,
        device=where,
        outcome=outcome,
    )
    return {"test": {**measured, "interval": [low, high]}, **checks}


def _logits(model: Classifier, images: Tensor) -> np.ndarray:
    """Of uint8 images (N,C,H,W), (N,K), without gradients."""
    with torch.no_grad():
        logits: np.ndarray = model(images.float() / 255).cpu().numpy()
    return logits


def compare_published(
    model: Classifier, split: Split, measured: dict[str, Any], entry: CatalogEntry, check: TeacherCheck
) -> dict[str, Any]:
    """The published figures beside the measured ones, and what explains a gap of more than two points."""
    clean, robust = entry.clean / 100, entry.autoattack / 100
    gap = {"clean": clean - measured["clean"], "robust": robust - measured["robust"]}
    explanation = ""
    if abs(gap["clean"]) > GAP:
        explanation = explain_gap(model, split, measured["clean"], clean, check.batch_size)
    elif gap["robust"] > GAP:
        explanation = _radius(model, split, measured, robust, check)
    return {"clean": clean, "autoattack": robust, "source": "robustbench 1.1.1", "gap": gap, "explained": explanation}


def explain_gap(model: Classifier, split: Split, clean: float, published: float, batch_size: int) -> str:
    """Which usual suspect brings clean accuracy to the published figure, in one line."""
    head = f"clean accuracy {clean:.1%}, published {published:.1%}: "
    low, high = clopper_pearson(round(clean * len(split.labels)), len(split.labels))
    if low <= published <= high:
        return f"{head}within the 95 % interval of {len(split.labels)} images; check more with --images"
    tried = {name: (variant(batch_size), advice) for name, variant, advice in _suspects(model, split)}
    best = min(tried, key=lambda name: abs(published - tried[name][0]))
    nearest, advice = tried[best]
    if abs(published - nearest) <= max(EXPLAINED, 0.1 * abs(published - clean)):
        return f"{head}{best} closes the gap ({nearest:.1%}); {advice}"
    if jpeg_edges(split.images) > BLOCK_EDGES:
        return f"{head}the images are JPEG-coded (8×8 block edges show), a lossy copy; take the original pixels"
    return f"{head}none of {', '.join(tried)} closes the gap (best: {best}, {nearest:.1%})"


def _suspects(model: Classifier, split: Split) -> Iterator[tuple[str, Callable[[int], float], str]]:
    """Name, what accuracy it would give, and what to do, in the order of likelihood."""
    channels = split.images.shape[1]
    known = {"no normalisation": (((0.0,) * channels, (1.0,) * channels), "none")}
    known |= {f"normalisation {name}": (v, name) for name, v in NORMALIZATIONS.items() if len(v[0]) == channels}
    for name, ((mean, std), flag) in known.items():
        variant = functools.partial(accuracy, _renormalized(model, mean, std), split)
        yield name, variant, f"import again with --normalize {flag}"
    if channels == 3:
        swapped = functools.partial(accuracy, lambda x: model(x.flip(1)), split)
        yield "channel order BGR", swapped, "swap red and blue in a factory module:function around it"
    reordered = functools.partial(_reordered, model, split)
    yield "another class order", reordered, "bring the dataset's classes into the order that it was trained with"


def _renormalized(model: Classifier, mean: "tuple[float, ...]", std: "tuple[float, ...]") -> Model:
    """The network as if its input were normalised by these constants in place of its own."""
    own = getattr(model, "preprocess", None)
    new_mean, new_std = (torch.tensor(v).reshape(1, -1, 1, 1) for v in (mean, std))

    def run(x: Tensor) -> Tensor:
        x = (x - new_mean.to(x.device)) / new_std.to(x.device)
        if isinstance(own, Normalize):  # undone, so that the network's own normalisation gives these values
            x = x * own.get_buffer("std") + own.get_buffer("mean")
        return model(x)

    return run


def _reordered(model: Classifier, split: Split, batch_size: int) -> float:
    """Accuracy when every predicted class stands for the label it best matches, one to one."""
    from scipy.optimize import linear_sum_assignment

    with torch.no_grad():
        logits = torch.cat([model(x) for x, _ in split.batches(batch_size)])
    counts = np.zeros((logits.shape[1], logits.shape[1]), np.int64)
    np.add.at(counts, (logits.argmax(1).cpu().numpy(), split.labels.cpu().numpy()), 1)
    rows, columns = linear_sum_assignment(-counts)
    return float(counts[rows, columns].sum()) / len(split.labels)


def jpeg_edges(images: Tensor) -> float:
    """Mean grey-level step across 8×8 block edges over the mean step elsewhere; about 1 without block coding."""
    levels = images.float()
    ratios = []
    for axis in (2, 3):
        steps = levels.diff(dim=axis).abs().mean((0, 1, 5 - axis))
        edge = torch.arange(len(steps)) % 8 == 7
        if edge.any():
            ratios.append(float(steps[edge.to(steps.device)].mean() / steps[~edge.to(steps.device)].mean()))
    return sum(ratios) / len(ratios) if ratios else 1.0


def _radius(model: Classifier, split: Split, measured: dict[str, Any], published: float, check: TeacherCheck) -> str:
    """Whether a smaller ε than the one attacked with explains too low a robust accuracy."""
    head = f"robust accuracy {measured['robust']:.1%}, published {published:.1%} under AutoAttack at ε = 8/255: "
    if measured["attack"] == "square":
        return f"{head}measured by square"
    if abs(check.radius - 8 / 255) > 1e-6:
        return f"{head}measured at ε = {check.eps}"
    for eps in ("6/255", "4/255", "2/255"):
        value = robust_accuracy(
            model, split, check.batch_size, eps=int(eps[0]) / 255, steps=check.steps, seed=check.seed
        )
        if value >= published - EXPLAINED:
            return f"{head}ε = {eps} closes the gap ({value:.1%}), it was perhaps trained and evaluated at that"
    return f"{head}not explained by a smaller ε; weights of another model, or preprocessing that differs"


def refuse_mismatch(network: Any, classes: int, channels: int, where: str, data: str) -> None:
    """A head or a first convolution that does not go with the data."""
    if network.classes != classes:
        raise CompressError(
            f"{where}: its head gives {network.classes} classes, {data} has {classes}; "
            f"check it with the dataset that it was trained on"
        )
    if network.channels != channels:
        raise CompressError(f"{where}: takes images of {network.channels} channels, {data} has {channels}; other data?")
