"""The checks that need logits alone, of any callable that gives them: torch, ONNX Runtime, an engine on a board.

About five batches of a sample: asked once, again, in another order, beside bright and beside dark noise; a few images
alone. What is found is the model's, not the sample's: a network with batch statistics shows on nearly every image.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge.core.errors import CheckFailed, first_line, machine_fault
from edge.core.proportions import clopper_pearson
from edge.runtimes.runner import FULL_SCALE, Runner, at_batch_sizes
from edge.validity import rules
from edge.validity.rules import ValidityCheck

#: Images float32 (N,C,H,W) in [0, 1] → logits (N,K).
AskLogits = Callable[["npt.NDArray[np.float32]"], "npt.NDArray[np.float32]"]

SAMPLE = 64
REPEATED = 1e-4  # of an image's spread of logits: what a second call of the same batch may change
#: Of an image's spread: what kernels for another batch may change. Below float32 a rounding flips whole levels.
ROUNDING = {"float32": 1e-3}
GPU_ROUNDING = {"float32": 1e-2}  # TF32 in one kernel and not in another
COARSE_ROUNDING = 0.05
GROSS = 0.25  # of an image's spread: no rounding moves one image so far
MOVED_SHARE = 0.2  # of images: rounding beyond the tolerance is an exception, batch statistics reach nearly all
IN_COMPANY, PER_IMAGE = 16, 4  # images that are asked beside others, of each four images one
ALONE = 8
DISTRIBUTION = 0.01  # a row's sum from 1: what rounding to half precision may change
FEW_CLASSES = 4  # logits of fewer lie between 0 and 1 by chance
GRID = (1e-3, 1e-2)  # outputs no closer than that stand on a quantizer's grid, whose rounding moves the sum


def rounding_of(precision: "str | None", *, gpu: bool = False) -> float:
    """The tolerance of a precision as stages call it; of an unknown one the coarse one."""
    return (GPU_ROUNDING if gpu else ROUNDING).get(str(precision), COARSE_ROUNDING)


def sampled(count: int, most: int = SAMPLE) -> "npt.NDArray[np.int64]":
    """At most `most` places among `count`, evenly spread."""
    return np.linspace(0, count - 1, min(most, count)).astype(np.int64) if count else np.empty(0, np.int64)


def unit_images(images: "npt.NDArray[np.uint8] | npt.NDArray[np.float32]") -> "npt.NDArray[np.float32]":
    """uint8 (N,C,H,W) as k/255; float32 as it is."""
    return images.astype(np.float32) / FULL_SCALE if images.dtype == np.uint8 else images.astype(np.float32)


def logits_checks(
    ask: AskLogits,
    images: "npt.NDArray[np.uint8] | npt.NDArray[np.float32]",
    *,
    at_sizes: "Mapping[int, AskLogits]",
    rounding: float = ROUNDING["float32"],
) -> "list[ValidityCheck]":
    """Every check that needs logits alone, on at most `SAMPLE` of the images (N,C,H,W), evenly spread.

    `at_sizes`: the same model asked in calls of other sizes, above all of 1; empty where it takes one size only, which
    the text then says. `rounding` as of `rounding_of`.
    """
    x = unit_images(images[sampled(len(images))])
    first = ask(x)
    second = ask(x)
    finite = np.isfinite(first).all(1)
    repeated, unsteady = _repeated(first, second)
    independent = (
        independence_check(ask, x, first, at_sizes, rounding)
        if not repeated.fired
        else validity_check(
            rules.BATCH, 0.0, MOVED_SHARE, len(x), "cannot be told of a model whose logits change between calls", ""
        )
    )
    not_finite = validity_check(
        rules.FINITE,
        float((~finite).mean()),
        0.0,
        len(x),
        f"logits are NaN or infinite on {int((~finite).sum())} of {len(x)} images",
        "look for an overflow or a division by zero in the network",
    )
    return [not_finite, repeated, unsteady, independent, probabilities_check(first[finite])]


def validity_check(
    name: str, value: float, threshold: float, n: int, seen: str, advice: str, *, fired: "bool | None" = None
) -> ValidityCheck:
    """A check that fires when `value` is larger than `threshold`, unless `fired` is given; advice where it does."""
    fired = value > threshold if fired is None else fired
    return ValidityCheck(name, fired, float(value), float(threshold), f"{seen}: {advice}" if fired else seen, n)


def _repeated(first: np.ndarray, second: np.ndarray) -> "tuple[ValidityCheck, ValidityCheck]":
    """Whether a second call on the same images gives other logits, and other classes."""
    n = len(first)
    moved = float((_moved(first, second) > REPEATED).mean())
    differ = int((first.argmax(1) != second.argmax(1)).sum())
    return (
        validity_check(
            rules.RANDOM,
            moved,
            0.0,
            n,
            f"two calls on the same {n} images gave {moved:.1%} of them other logits",
            "each of its figures is of single draws; turn dropout and noise off, or average over draws: evaluate "
            "--attack rand",
        ),
        validity_check(
            rules.UNSTEADY,
            differ / n,
            0.0,
            n,
            f"two calls on the same {n} clean images named another class for {differ}",
            "an accuracy of one call is a matter of luck; make the model deterministic",
        ),
    )


def _moved(want: np.ndarray, got: np.ndarray) -> "npt.NDArray[np.float64]":
    """How far each image's logits moved, relative to their spread; inf where a number became none or the reverse.

    A spread near zero, of a constant network or beside a large offset, is no scale: then the sample's is.
    """
    finite = np.isfinite(want).all(1)
    if not finite.any():
        return np.where(np.isfinite(got).all(1), np.inf, 0.0)
    known = want[finite].astype(np.float64)
    spread = known.max(1) - known.min(1)
    scale = np.maximum(spread, max(float(np.median(spread)), 1e-3 * float(np.abs(known).max()), 1e-12))
    moved = np.where(np.isfinite(got).all(1), np.inf, 0.0)  # of what was no number before
    with np.errstate(invalid="ignore"):
        moved[finite] = np.abs(got[finite].astype(np.float64) - known).max(1) / scale
    return np.asarray(np.nan_to_num(moved, nan=np.inf))


# ------------------------------------------------------------------------------------------- independence of the batch


def independence_check(
    ask: AskLogits, x: np.ndarray, first: np.ndarray, at_sizes: "Mapping[int, AskLogits]", rounding: float
) -> ValidityCheck:
    """Whether an image's logits depend on what else is in its call, or on its place there. `first`: logits of `x`."""
    order = np.random.default_rng(0).permutation(len(x))
    reordered = np.empty_like(first)
    reordered[order] = ask(x[order])
    ways, unasked = {"in another order": _difference(first, reordered, rounding)}, []
    asked = x[:IN_COMPANY]
    for light, (low, high) in (("bright", (0.9, 1.0)), ("dark", (0.0, 0.1))):
        # noise: a network that divides by an image's deviation has no answer to a constant one
        drawn = np.random.default_rng(1).uniform(low, high, (PER_IMAGE * len(asked), *x.shape[1:]))
        company = drawn.astype(np.float32)
        company[::PER_IMAGE] = asked
        try:
            beside = ask(company)[::PER_IMAGE]
        except CheckFailed:  # of images that nobody has, a runner's answer that is no number says nothing
            unasked.append(f"it has no finite answer to {light} noise")
            continue
        ways[f"beside {light} noise"] = _difference(first[: len(asked)], beside, rounding)
    for size, ask_at in at_sizes.items():
        few, way = x[:ALONE], "alone" if size == 1 else f"in calls of {size}"
        try:
            answers = ask_at(few)
        except Exception as fault:  # whatever a network raises that needs others beside an image
            if told := machine_fault(fault, "the validity checks"):
                raise told from fault
            advice = "it needs a whole batch" if size == 1 else "it takes no batch of that size"
            return validity_check(
                rules.BATCH,
                1.0,
                MOVED_SHARE,
                len(few),
                f"asked {way}, it fails ({first_line(fault)})",
                f"{advice}; export or import the network in evaluation mode",
            )
        ways[way] = _difference(first[: len(few)], answers, rounding)
    if 1 not in at_sizes:
        unasked.append("its calls have one size, so none could be asked alone")
    return _independence(ways, unasked)


@dataclass(frozen=True)
class _Difference:
    """Of `n` images the share that moved beyond rounding, the furthest, and how many are named another class."""

    share: float
    furthest: float
    other: int
    n: int

    @property
    def fires(self) -> bool:
        return self.share > MOVED_SHARE or self.furthest > GROSS


def _difference(want: np.ndarray, got: np.ndarray, rounding: float) -> _Difference:
    moved = _moved(want, got)
    other = int((want.argmax(1) != got.argmax(1)).sum())
    return _Difference(float((moved > rounding).mean()), float(moved.max(initial=0)), other, len(want))


def _independence(ways: "Mapping[str, _Difference]", unasked: "Sequence[str]") -> ValidityCheck:
    """The check by the way of asking that says most; `unasked`: what could not be asked."""
    way, worst = max(ways.items(), key=lambda item: (item[1].fires, item[1].share, item[1].furthest))
    if worst.fires:
        seen = (
            f"an image's logits depend on its batch: {way} {round(worst.share * worst.n)} of {worst.n} images move, by "
            f"up to {worst.furthest:.1%} of their spread, and {worst.other} are named another class"
        )
    else:
        furthest = max(difference.furthest for difference in ways.values())
        seen = f"the same images, asked {_listed(list(ways))}, move by at most {furthest:.2g} of their spread"
        seen += f" ({'; '.join(unasked)})" if unasked else ""
    return validity_check(
        rules.BATCH,
        worst.share,
        MOVED_SHARE,
        worst.n,
        seen,
        "every figure holds for such batches alone; bring the network into evaluation mode (BatchNorm with running "
        "statistics) and export it again, or quantize it with static ranges, not dynamically",
        fired=worst.fires,
    )


def _listed(parts: "Sequence[str]") -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


# ------------------------------------------------------------------------------------------- probabilities


def distributions(answers: np.ndarray) -> "npt.NDArray[np.bool_]":
    """Which rows of (N,K) are a probability distribution, as far as half precision or a quantizer's grid shows.

    In [0, 1], with a sum of 1; where all values stand on a coarse grid, K roundings to it may move the sum.
    """
    values = np.unique(answers)
    steps = np.diff(values)
    step = float(steps.min()) if len(steps) and GRID[0] < steps.min() < GRID[1] else 0.0
    tolerance = DISTRIBUTION + answers.shape[1] * step / 2
    inside = (answers >= -DISTRIBUTION) & (answers <= 1 + DISTRIBUTION)
    with np.errstate(invalid="ignore", over="ignore"):
        return np.asarray(inside.all(1) & (np.abs(answers.sum(1, dtype=np.float64) - 1) < tolerance))


def probabilities_check(answers: np.ndarray) -> ValidityCheck:
    """Whether logits (N,K) are the outputs of a softmax, of a multiple of one, or of a sigmoid a class."""
    n = len(answers)
    share = float(distributions(answers).mean()) if n else 0.0
    seen = f"outputs lie in [0, 1] and sum to 1 on {share:.1%} of images"
    if share < 1 and n > 0 and answers.min() >= 0 and _varies(answers):
        sums = answers.sum(1, dtype=np.float64)
        if 0.95 < answers.max() <= 1 and answers.min() < 0.05:
            share, seen = 1.0, f"outputs lie in [0, 1] and reach both ends on {n} images, as a sigmoid's do"
        elif answers.max() <= 1 and answers.shape[1] >= FEW_CLASSES and _like_sigmoids(answers, sums):
            share, seen = 1.0, f"outputs lie in [0, 1] on all of {n} images, as a sigmoid's do"
        elif answers.min() < 0.05 * answers.max() and np.ptp(sums) <= DISTRIBUTION * sums.max():
            share, seen = 1.0, f"outputs are positive and sum to {sums.max():.4g} on all of {n} images, as percents do"
    return validity_check(rules.PROBABILITIES, share, 0.99, n, seen, "attack the logits before the softmax")


def _like_sigmoids(answers: np.ndarray, sums: np.ndarray) -> bool:
    """Whether values in [0, 1] are about one class an image, as trained sigmoids are, or all near 0.5, as others are.

    Small logits of a network that was trained against strong attacks may lie in [0, 1] too.
    """
    return bool(0.5 <= sums.mean() <= 2 or abs(answers.mean() - 0.5) < 0.05)


def _varies(answers: np.ndarray) -> bool:
    """Whether not all images get the same answer: a constant network is no sigmoid, whatever lies in [0, 1]."""
    return bool((answers != answers[0]).any())


# ------------------------------------------------------------------------------------------- chance


def chance_count(labels: "npt.NDArray[np.int64]") -> int:
    """Images that a constant classifier is right on at best: those of the largest class."""
    return int(np.unique(labels, return_counts=True)[1].max(initial=0))


def chance_check(
    right: int, labels: "npt.NDArray[np.int64]", predictions: "npt.NDArray[np.int64] | None" = None
) -> ValidityCheck:
    """Whether `right` of the images with these labels (N,) is more than a constant classifier gets.

    `predictions`: classes named for some of them, which tells a constant classifier by name.
    """
    n, constant = len(labels), chance_count(labels)
    low, _ = clopper_pearson(right, n)
    same = predictions is not None and len(predictions) > 1 and len(np.unique(predictions)) == 1
    named = f"; every one of {len(predictions)} images is named class {predictions[0]}" if same else ""  # type: ignore[arg-type,index]
    return validity_check(
        rules.CHANCE,
        constant / n,
        low,
        n,
        f"clean accuracy {right / n:.1%} of {n} images (95 % interval from {low:.1%}), a constant classifier gets "
        f"{constant / n:.1%}{named}",
        "no better than chance; it may expect other pixels than [0, 1] or other classes, or the images are too few",
    )


COMPANY = 8  # images of a call that shows a runner of single images what company does


def artifact_checks(
    runner: Runner,
    images: "npt.NDArray[np.uint8] | npt.NDArray[np.float32]",
    *,
    precision: "str | None",
    sizes: "Sequence[int]" = (1,),
) -> "list[ValidityCheck]":
    """What needs logits alone, of images (N,C,H,W), asked in calls of the runner's own size and of `sizes` as well.

    Sizes that the file cannot be executed at are left out, which the check says of 1. `precision` as stages call it,
    None where nothing is known.
    """
    rounding = rounding_of(precision, gpu="CPU" not in str(runner.describe().get("provider")))
    together = (COMPANY,) if runner.batch_size == 1 else ()
    with at_batch_sizes(runner, (*sizes, *together)) as at_sizes:
        return logits_checks(runner.infer, images, at_sizes=at_sizes, rounding=rounding)
