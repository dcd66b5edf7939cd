"""How far statistics on adversarial images lie from those on clean ones, for a sample and all its resamples at once.

`weights` (M,n) say how often each of the n images is drawn, every row sums to n; a row of ones is the sample itself.
Each function gives (M,), computed as if the drawn images stood in a list. With f_i (D,) the pooled features and s_i
(K,) the softmax scores of image i, w its weight and μ = Σ w f / n:

    C = Σ w (f − μ)(f − μ)ᵀ / (n − 1)        sample covariance, D×D
    G = Σ w s sᵀ / n                         Gram matrix of classes, K×K
    H = (√w_i s_i · √w_j s_j) / n            Gram matrix of images, n×n

Frobenius distances are quadratic forms wᵀQw of an n×n matrix Q that depends on no weight, so that a thousand
resamples need no thousand D×D matrices: ‖Σ w (a aᵀ − c cᵀ)‖² = Σ_ij w_i w_j [(a_i·a_j)² − 2 (a_i·c_j)² + (c_i·c_j)²].
Q is made in blocks of rows and never held as a whole. float64 throughout.
"""

from collections.abc import Callable

import numpy as np
from scipy.stats import rankdata

BLOCK = 512  # rows of Q at once


# ---------------------------------------- correlations along the last axis; NaN stands for undefined

CONSTANT = 1e-12  # a spread below this share of the values is rounding

COLLINEAR = 1e-8  # likewise of a direction among covariates, and of what they leave of a variable


def varies(x: np.ndarray) -> np.ndarray:
    """Whether values (…,m) are numbers and not all alike: bool (…)."""
    return np.asarray(np.ptp(x, axis=-1) > CONSTANT * np.abs(x).max(-1))  # a NaN compares as False


def traces(features: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """tr C of features (n,D)."""
    n = len(features)
    centred = features - features.mean(0)
    means = weights @ centred / n
    return np.asarray((weights @ (centred**2).sum(1) - n * (means**2).sum(1)) / (n - 1))


def covariance_distance(a: np.ndarray, c: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """‖C(a) − C(c)‖ of features (n,D)."""
    n = len(a)
    a, c = a - a.mean(0), c - c.mean(0)  # changes no covariance, and keeps the means below small
    u, v = weights @ a / n, weights @ c / n
    squared = _quadratic(weights, lambda rows: _outer_kernel(a, c, rows))
    crossed = _along(a, c, u, weights) - _along(a, c, v, weights)
    means = (u**2).sum(1) ** 2 - 2 * (u * v).sum(1) ** 2 + (v**2).sum(1) ** 2
    return np.sqrt(np.maximum(squared - 2 * n * crossed + n**2 * means, 0)) / (n - 1)


def covariance_norm(features: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """‖C‖ of features (n,D)."""
    return covariance_distance(features, np.zeros_like(features), weights)


def class_gram_distance(a: np.ndarray, c: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """‖G(a) − G(c)‖ of scores (n,K)."""
    squared = _quadratic(weights, lambda rows: _outer_kernel(a, c, rows))
    return np.sqrt(np.maximum(squared, 0)) / len(a)


def image_gram_distance(a: np.ndarray, c: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """‖H(a) − H(c)‖ of scores (n,K)."""
    squared = _quadratic(weights, lambda rows: (a[rows] @ a.T - c[rows] @ c.T) ** 2)
    return np.sqrt(squared) / len(a)


def _along(a: np.ndarray, c: np.ndarray, directions: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """uᵀ Σ w (a aᵀ − c cᵀ) u for the direction u (M,D) of each row of weights."""
    return np.asarray((weights * ((directions @ a.T) ** 2 - (directions @ c.T) ** 2)).sum(1))


def _outer_kernel(a: np.ndarray, c: np.ndarray, rows: slice) -> np.ndarray:
    """(a_i·a_j)² − 2 (a_i·c_j)² + (c_i·c_j)² for i in `rows` and every j."""
    return np.asarray((a[rows] @ a.T) ** 2 - 2 * (a[rows] @ c.T) ** 2 + (c[rows] @ c.T) ** 2)


def _quadratic(weights: np.ndarray, kernel: Callable[[slice], np.ndarray]) -> np.ndarray:
    """wᵀQw for each row w of `weights`; `kernel` gives some rows of Q."""
    total = np.zeros(len(weights))
    for begin in range(0, weights.shape[1], BLOCK):
        rows = slice(begin, begin + BLOCK)
        total += (weights[:, rows] * (weights @ kernel(rows).T)).sum(1)
    return total


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
