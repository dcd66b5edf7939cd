"""Correlations along the last axis, for many samples at once. NaN stands for undefined."""

import numpy as np
from scipy.stats import rankdata

CONSTANT = 1e-12  # a spread below this share of the values is rounding
COLLINEAR = 1e-8  # likewise of a direction among covariates, and of what they leave of a variable


def varies(x: np.ndarray) -> np.ndarray:
    """Whether values (…,m) are numbers and not all alike: bool (…)."""
    return np.asarray(np.ptp(x, axis=-1) > CONSTANT * np.abs(x).max(-1))  # a NaN compares as False


def pearson(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pearson's r of x and y (…,m): (…)."""
    defined = varies(x) & varies(y)
    x, y = x - x.mean(-1, keepdims=True), y - y.mean(-1, keepdims=True)
    scale = np.sqrt((x**2).sum(-1) * (y**2).sum(-1))
    found = (x * y).sum(-1) / np.where(defined, scale, 1)
    return np.where(defined, found.clip(-1, 1), np.nan)


def spearman(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Spearman's ρ: Pearson's r of ranks, ties at their mean rank."""
    return np.where(varies(x) & varies(y), pearson(rankdata(x, axis=-1), rankdata(y, axis=-1)), np.nan)


def partial(x: np.ndarray, y: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Pearson's r of what least squares on `given` (…,m,k) and a constant leaves of x and y (…,m): (…)."""
    defined = varies(x) & varies(y) & np.isfinite(given).all((-1, -2))
    given = np.where(defined[..., None, None], given, 0)
    centred = given - given.mean(-2, keepdims=True)
    length = np.sqrt((centred**2).sum(-2, keepdims=True))
    directions, size, _ = np.linalg.svd(centred / np.where(length > 0, length, 1), full_matrices=False)
    directions = directions * (size > COLLINEAR)[..., None, :]

    def left(values: np.ndarray) -> "tuple[np.ndarray, np.ndarray]":
        values = values - values.mean(-1, keepdims=True)
        rest = values - np.einsum("...mk,...k->...m", directions, np.einsum("...mk,...m->...k", directions, values))
        return rest, (rest**2).sum(-1) > COLLINEAR**2 * (values**2).sum(-1)

    (x, x_left), (y, y_left) = left(x), left(y)
    return np.where(defined & x_left & y_left, pearson(x, y), np.nan)


def interval(draws: np.ndarray, level: float = 0.95) -> "tuple[float, float] | None":
    """The percentile interval of bootstrap draws; None when fewer than half of them are defined."""
    defined = draws[np.isfinite(draws)]
    if len(defined) == 0 or len(defined) < len(draws) / 2:
        return None
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
