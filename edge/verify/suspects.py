"""Why an artifact may not compute what its twin computes: the usual faults of an export, each tried on it.

A fault is named when undoing it brings the predictions back: other pixels in, or other classes out. What is left is
told by how the logits compare.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

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
    found = [(_returned(infer, undo(x), wanted), what) for what, undo in _pixels(x.shape[1])]
    order = _relabelled(wanted, got.argmax(1), want.shape[1])
    if order is not None:
        moved = ", ".join(f"{k} → {int(order[k])}" for k in np.flatnonzero(order != np.arange(len(order))))
        found.append((float((order[wanted] == got.argmax(1)).mean()), f"its classes stand in another order ({moved})"))
    back, what = max(found)
    if back >= BACK and back > agreed + GAIN:
        return f"{what}: then {back:.1%} of {len(x)} predictions agree instead of {agreed:.1%}"
    spread = float(got.std() / max(float(want[:most].std()), 1e-12))
    if not SPREAD[0] <= spread <= SPREAD[1]:
        return f"its logits spread {spread:.2f} times as far as the twin's: look at the ranges of its quantizers"
    return ""


def _returned(infer: Infer, x: "npt.NDArray[np.float32]", wanted: "npt.NDArray[np.int64]") -> float:
    return float((infer(np.ascontiguousarray(x, np.float32)).argmax(1) == wanted).mean())


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
