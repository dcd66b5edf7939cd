"""The exact binomial interval, without scipy."""

import math

import numpy as np


def clopper_pearson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Clopper & Pearson (1934): the two-sided interval of a proportion at `level`; (0, 1) for n = 0."""
    if not 0 <= successes <= n or not 0 < level < 1:
        raise ValueError(f"{successes} of {n} at level {level} is no proportion")
    tail = (1 - level) / 2
    low = 0.0 if successes == 0 else _solve(lambda p: 1 - _cdf(successes - 1, n, p), tail, rising=True)
    high = 1.0 if successes == n else _solve(lambda p: _cdf(successes, n, p), tail, rising=False)
    return low, high


def _cdf(k: int, n: int, p: float) -> float:
    """P(X ≤ k) of a binomial, summed in logarithms."""
    if p <= 0 or p >= 1:
        return 1.0 if p <= 0 or k >= n else 0.0
    terms = np.array([_log_choose(n, i) for i in range(k + 1)])
    ways = np.arange(k + 1)
    logs = terms + ways * math.log(p) + (n - ways) * math.log1p(-p)
    top = float(logs.max())
    return min(1.0, math.exp(top) * float(np.exp(logs - top).sum()))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _solve(function, target: float, rising: bool) -> float:  # type: ignore[no-untyped-def]
    """Where a monotone function of p in (0, 1) meets the target, to 1e-12."""
    low, high = 0.0, 1.0
    while high - low > 1e-12:
        middle = (low + high) / 2
        if (function(middle) < target) == rising:
            low = middle
        else:
            high = middle
    return (low + high) / 2
