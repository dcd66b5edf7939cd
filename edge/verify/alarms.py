"""Signs that a figure is better than the artifact: gradients masked, another network attacked, answers that vary.

Where the artifact differs from its twin, the usual faults of an export are tried on it. A fault is named when undoing
it brings the predictions back: other pixels in, or other classes out. What is left is told by how the logits compare.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.core.proportions import clopper_pearson
from edge.statement.statement import Agreement, Alarm
from edge.validity import rules
from edge.validity.logits import chance_check
from edge.validity.rules import ValidityCheck
from edge.verify.verdicts import Verdicts

MIN_AGREEMENT = 0.99


def raise_alarms(
    verdicts: Verdicts,
    agreement: "Agreement | None",
    why: Callable[[], str] = str,
    checks: "Sequence[ValidityCheck]" = (),
) -> list[Alarm]:
    """Every alarm, fired or not; that of the twin only where agreement was measured.

    `why` is asked for the likeliest fault, "" for none, when artifact and twin differ on clean images. `checks` of a
    sample become alarms too, but for the one that both clean passes make on all images.
    """
    compared = [] if agreement is None else [_twin(agreement, why)]
    n, replayed, broken = len(verdicts.labels), len(verdicts.replayed), verdicts.broken
    count = int((broken[replayed:].any(0) & ~broken[:replayed].any(0)).sum())
    threshold = rules.free_threshold(n)
    masking = Alarm(
        name=rules.MASKING,
        fired=replayed > 0 and count > threshold,  # where no gradient was asked, none is masked
        count=count,
        threshold=threshold,
        interval=clopper_pearson(count, n),
        meaning=f"{count} of {n} images fall to attacks without gradients and to no replayed gradient attack",
    )
    unsteady = Alarm(
        name=rules.UNSTEADY,
        fired=verdicts.unsteady > 0,
        count=verdicts.unsteady,
        threshold=0,
        interval=clopper_pearson(verdicts.unsteady, n),
        meaning=f"two passes over the same {n} clean images gave {verdicts.unsteady} of them different logits",
    )
    chance = chance_check(int(verdicts.right.sum()), verdicts.labels, verdicts.clean_logits.argmax(1))
    sampled = [Alarm.of(check) for check in (*checks, chance) if check.name != unsteady.name]
    return [masking, *compared, unsteady, *sampled]


def disagreement(agreement: Agreement) -> tuple[str, float, int, int]:
    """Of clean and adversarial the side that agrees less: its name, share of agreement, differing predictions, of n."""
    sides = {"clean": agreement.clean, "adversarial": agreement.adversarial}
    side = min(sides, key=lambda name: sides[name].argmax_agreement)
    n, share = sides[side].n, sides[side].argmax_agreement
    return side, share, round((1 - share) * n), n


def _twin(agreement: Agreement, why: Callable[[], str]) -> Alarm:
    """Clean images and candidates each on their own: the side that agrees less decides."""
    side, share, count, n = disagreement(agreement)
    likely = why() if agreement.clean.argmax_agreement < MIN_AGREEMENT else ""
    differ = f"{count} of {n} predictions on {side} images differ"
    other = "the artifact does not compute what the network that the gradients came from computes: "
    return Alarm(
        name=rules.TWIN,
        fired=share < MIN_AGREEMENT,
        count=count,
        threshold=(1 - MIN_AGREEMENT) * n,
        interval=clopper_pearson(count, n),
        meaning=f"{other if share < MIN_AGREEMENT else ''}{differ}{f'; {likely}' if likely else ''}",
    )


# --------------------------------------------------------------------------------------- the fault behind a difference


Infer = Callable[["npt.NDArray[np.float32]"], "npt.NDArray[np.float32]"]
Change = Callable[["npt.NDArray[Any]"], "npt.NDArray[Any]"]

#: So much of the twin's predictions must come back, and so much more than without undoing anything.
BACK, GAIN = 0.9, 0.05
CIFAR = ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
#: Spread of the logits, artifact's over twin's, outside of which the ranges are named.
SPREAD = (0.8, 1.25)


def suspect(infer: Infer, images: "npt.NDArray[np.uint8]", want: "npt.NDArray[np.float32]", *, most: int = 256) -> str:
    """The likeliest fault of the artifact behind `infer` as part of a sentence, "" where none is found.

    `images` (N,C,H,W), `want` the twin's logits of them (N,K); at most `most` images are asked about.
    """
    x, wanted = images[:most].astype(np.float32) / np.float32(255), want[:most].argmax(1)
    got = infer(x)
    agreed = float((got.argmax(1) == wanted).mean())
    faults = [
        (float((infer(np.ascontiguousarray(undo(x), np.float32)).argmax(1) == wanted).mean()), what)
        for what, undo in _pixels(x.shape[1])
    ]
    order = _relabelled(wanted, got.argmax(1), want.shape[1])
    if order is not None:
        moved = ", ".join(f"{k} → {int(order[k])}" for k in np.flatnonzero(order != np.arange(len(order))))
        faults.append((float((order[wanted] == got.argmax(1)).mean()), f"its classes stand in another order ({moved})"))
    back, what = max(faults)
    if back >= BACK and back > agreed + GAIN:
        return f"{what}: then {back:.1%} of {len(x)} predictions agree instead of {agreed:.1%}"
    spread = float(got.std() / max(float(want[:most].std()), 1e-12))
    if not SPREAD[0] <= spread <= SPREAD[1]:
        return f"its logits spread {spread:.2f} times as far as the twin's: look at the ranges of its quantizers"
    return ""


def _pixels(channels: int) -> "Iterator[tuple[str, Change]]":
    """What the artifact may do to pixels beyond the twin, or leave out: its name, and what undoes it."""
    yield "it takes pixels in 0…255, or divides them once more", lambda x: x * 255
    yield "it multiplies pixels by 255", lambda x: x / 255
    yield "it takes pixels in −1…1", lambda x: 2 * x - 1
    yield "it brings pixels into −1…1 once more", lambda x: (x + 1) / 2
    if channels != 3:
        return
    yield "it takes the channels as blue, green, red", lambda x: x[:, ::-1]
    for name, (mean, std) in (("CIFAR", CIFAR), ("ImageNet", IMAGENET)):
        forward, back = _normalisation(mean, std)
        yield f"it takes pixels normalised by {name}'s mean and deviation", forward
        yield f"it normalises pixels by {name}'s mean and deviation once more", back


def _normalisation(mean: "tuple[float, ...]", std: "tuple[float, ...]") -> "tuple[Change, Change]":
    """(x − mean) / std by channel, and its inverse."""
    m, s = (np.array(values, np.float32)[None, :, None, None] for values in (mean, std))
    return lambda x: (x - m) / s, lambda x: x * s + m


def _relabelled(
    wanted: "npt.NDArray[np.int64]", got: "npt.NDArray[np.int64]", classes: int
) -> "npt.NDArray[np.int64] | None":
    """The artifact's class for each of the twin's, (K,), when that is an order of its own; None when it is not."""
    table = np.zeros((classes, classes), np.int64)
    np.add.at(table, (wanted, got), 1)
    order = np.where(table.any(1), table.argmax(1), np.arange(classes))
    if len(np.unique(order)) < classes or (order == np.arange(classes)).all():
        return None
    return order
