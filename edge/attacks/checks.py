"""The independent check of a candidate, in float64: nothing here is shared with the code that makes candidates."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.core.errors import CompressError

SLACK = 1e-6  # on eps: a float32 image cannot hold every sum x + eps


def admissible(x_adv: "npt.NDArray[Any]", x: "npt.NDArray[Any]", eps: float) -> "npt.NDArray[np.bool_]":
    """Whether max|x_adv − x| ≤ eps + 1e-6 with x_adv finite and inside [0, 1]. (N,C,H,W) twice → bool (N,).

    Each array is uint8 (0…255, taken as k/255) or float in [0, 1]; `eps` is on pixels in [0, 1].
    """
    if x_adv.shape != x.shape or x.ndim < 2:
        raise CompressError(
            f"candidates of shape {x_adv.shape} for images of shape {x.shape}; give one candidate an image, (N,C,H,W)"
        )
    pixels = tuple(range(1, x.ndim))
    if x_adv.dtype == x.dtype == np.uint8:  # the same comparison in whole grey levels, far faster
        levels = np.maximum(x_adv, x) - np.minimum(x_adv, x)
        return np.asarray((levels <= math.floor(255 * (eps + SLACK))).all(axis=pixels))
    candidate, clean = _unit(x_adv), _unit(x)
    with np.errstate(invalid="ignore"):  # inf − inf; what is not finite fails the comparisons
        near = np.abs(candidate - clean) <= eps + SLACK
    inside = (candidate >= 0) & (candidate <= 1)
    return np.asarray((near & inside).all(axis=pixels))


def wrong(logits: "npt.NDArray[Any]", labels: "npt.NDArray[Any]") -> "npt.NDArray[np.bool_]":
    """Whether another logit than the label's is largest; of equal ones the first counts. (N,K), (N,) → bool (N,)."""
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise CompressError(f"logits of shape {logits.shape} for labels of shape {labels.shape}; (N,K) and (N,) needed")
    return np.asarray(logits.argmax(1) != labels)


def _unit(images: "npt.NDArray[Any]") -> "npt.NDArray[np.float64]":
    """Pixels in [0, 1], float64."""
    if images.dtype == np.uint8:
        return images.astype(np.float64) / 255
    if np.issubdtype(images.dtype, np.floating):
        return images.astype(np.float64)
    raise CompressError(f"images of type {images.dtype}; uint8 or float is needed")
