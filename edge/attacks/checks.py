"""Whether a candidate counts: the one definition, in float64, shared with nothing that makes candidates.

A candidate is admissible when it is finite, inside [0, 1], and at most ε + `SLACK` from its image; it counts when the
model under test also says wrong of it in float32. `compress.attacks.judge` and `compress.attacks.losses.verdict` say
the same of torch models and are held to this by tests.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.core.errors import CompressError

SLACK = 1e-6  # on eps: a float32 image cannot hold every sum x + eps
#: Why a candidate is inadmissible, in the order in which it is looked at.
FAULTS = ("not finite", "outside [0, 1]", "outside the ball")


def admissible(
    x_adv: "npt.NDArray[Any]", x: "npt.NDArray[Any]", eps: float, norm: str = "linf"
) -> "npt.NDArray[np.bool_]":
    """Whether ‖x_adv − x‖ ≤ eps + 1e-6 in `norm` with x_adv finite and inside [0, 1]. (N,C,H,W) twice → bool (N,).

    Each array is uint8 (0…255, taken as k/255) or float in [0, 1]; `eps` is on pixels in [0, 1].
    """
    if norm == "linf" and x_adv.dtype == x.dtype == np.uint8:
        # the same comparison in whole grey levels, far faster
        _refuse_other_shapes(x_adv, x)
        levels = np.maximum(x_adv, x) - np.minimum(x_adv, x)
        return np.asarray((levels <= math.floor(255 * (eps + SLACK))).all(axis=tuple(range(1, x.ndim))))
    return np.asarray(~np.any(faults(x_adv, x, eps, norm), axis=0))


def faults(
    x_adv: "npt.NDArray[Any]", x: "npt.NDArray[Any]", eps: float, norm: str = "linf"
) -> "list[npt.NDArray[np.bool_]]":
    """Bool (N,) for each of `FAULTS`; of what is not finite only the first says something. As `admissible`."""
    _refuse_other_shapes(x_adv, x)
    pixels = tuple(range(1, x.ndim))
    candidate, clean = _unit(x_adv), _unit(x)
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite fails its own question
        delta = candidate - clean
        size = np.abs(delta).max(axis=pixels, initial=0) if norm == "linf" else np.sqrt((delta**2).sum(axis=pixels))
        return [
            ~np.isfinite(candidate).all(axis=pixels),
            ((candidate < 0) | (candidate > 1)).any(axis=pixels),
            ~(size <= eps + SLACK),
        ]


def wrong(logits: "npt.NDArray[Any]", labels: "npt.NDArray[Any]") -> "npt.NDArray[np.bool_]":
    """Whether a prediction is wrong, (N,K), (N,) → bool (N,): another logit than the label's is largest, of equal ones
    the first; or a logit is no number, which is no prediction.
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise CompressError(f"logits of shape {logits.shape} for labels of shape {labels.shape}; (N,K) and (N,) needed")
    return np.asarray((logits.argmax(1) != labels) | np.isnan(logits).any(1))


def _refuse_other_shapes(x_adv: "npt.NDArray[Any]", x: "npt.NDArray[Any]") -> None:
    if x_adv.shape != x.shape or x.ndim < 2:
        raise CompressError(
            f"candidates of shape {x_adv.shape} for images of shape {x.shape}; give one candidate an image, (N,C,H,W)"
        )


def _unit(images: "npt.NDArray[Any]") -> "npt.NDArray[np.float64]":
    """Pixels in [0, 1], float64."""
    if images.dtype == np.uint8:
        return images.astype(np.float64) / 255
    if np.issubdtype(images.dtype, np.floating):
        return images.astype(np.float64)
    raise CompressError(f"images of type {images.dtype}; uint8 or float is needed")
