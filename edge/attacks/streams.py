"""Random numbers addressed by (seed, image, query): no state, so no image's draws depend on its neighbours."""

from typing import Any

import numpy as np
import numpy.typing as npt

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
