"""What searches without gradients share: the ball, addressed random numbers, and whose turn it is.

The L∞ ball around images is in the images' own numbers: integers on the 8-bit grid, or floats in [0, 1]. Random numbers
are addressed by (seed, image, query): no state, so no image's draws depend on its neighbours.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

#: images (N,C,H,W), uint8 or float32 as given to the attack → logits (N,K)
Infer = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class QueryAttackResult:
    """What an attack without gradients came to, image by image."""

    adversarial: np.ndarray  # (N,C,H,W), dtype as given, always admissible
    broken: np.ndarray  # bool (N,): misclassified
    queries: np.ndarray  # int64 (N,): model calls spent on it, the clean one included


@dataclass(frozen=True)
class Ball:
    """Working copy of clean images `x`, the radius in the same unit, and the range of pixels."""

    x: np.ndarray
    radius: float
    top: float
    dtype: np.dtype

    @classmethod
    def around(cls, x: np.ndarray, eps: float) -> "Ball":
        """uint8 images get the integer radius ⌊255 eps⌋ (a rounding error in eps forgiven), float images eps itself."""
        if x.dtype == np.uint8:
            return cls(x.astype(np.int16), int(255 * eps + 1e-6), 255, x.dtype)
        return cls(x.astype(np.float32), float(np.float32(eps)), 1.0, x.dtype)

    def of(self, index: np.ndarray) -> "Ball":
        return Ball(self.x[index], self.radius, self.top, self.dtype)

    def project(self, moved: np.ndarray) -> np.ndarray:
        low, high = np.maximum(self.x - self.radius, 0), np.minimum(self.x + self.radius, self.top)
        return np.clip(moved, low, high)

    def images(self, values: np.ndarray) -> np.ndarray:
        """Values of the working copy as images for the model."""
        return values.astype(self.dtype)


def whose_turn(active: np.ndarray, spent: np.ndarray, batch_size: int) -> np.ndarray:
    """Which of the `active` images to query now, ascending: the least-queried ones, as many as fill whole batches.

    All of them where they do not fill one. `spent` (N,) are the queries of every image so far.
    """
    count = len(active) // batch_size * batch_size or len(active)
    return np.sort(active[np.argsort(spent[active], kind="stable")[:count]])


_STEP, _A, _B = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def uniform(
    seed: int, ids: "npt.NDArray[Any]", query: "int | npt.NDArray[Any]", count: int
) -> "npt.NDArray[np.float64]":
    """`count` numbers in [0, 1) for each image id (N,), the same for the same address; float64 (N,count).

    `query` is one number for all images, or one each (N,).
    """
    key = _mix(_mix(np.array([seed], np.uint64) + _STEP) ^ ids.astype(np.uint64))
    key = _mix(key ^ _mix(np.broadcast_to(query, ids.shape).astype(np.uint64) + _STEP))
    draws = _mix(key[:, None] + np.arange(1, count + 1, dtype=np.uint64)[None] * _STEP)
    return (draws >> np.uint64(11)).astype(np.float64) / 2.0**53


def _mix(z: "npt.NDArray[np.uint64]") -> "npt.NDArray[np.uint64]":
    """The finaliser of SplitMix64 (Steele, Lea & Flood 2014); arithmetic modulo 2⁶⁴ is meant."""
    with np.errstate(over="ignore"):
        z = z + _STEP
        z = (z ^ (z >> np.uint64(30))) * _A
        z = (z ^ (z >> np.uint64(27))) * _B
        return np.asarray(z ^ (z >> np.uint64(31)))
