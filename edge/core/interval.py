"""The exact binomial interval, without scipy."""

import math
from collections.abc import Callable

TINY = 1e-300
CLOSE = 1e-15


def clopper_pearson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Clopper & Pearson (1934): the two-sided interval of a proportion at `level`; (0, 1) for n = 0."""
    if not 0 <= successes <= n or not 0 < level < 1:
        raise ValueError(f"{successes} of {n} at level {level} is no proportion")
    tail = (1 - level) / 2
    low = 0.0 if successes == 0 else _root(lambda p: beta(p, successes, n - successes + 1) - tail)
    high = 1.0 if successes == n else _root(lambda p: beta(p, successes + 1, n - successes) - (1 - tail))
    return low, high


def beta(p: float, a: int, b: int) -> float:
    """The regularised incomplete beta function I_p(a, b), 0 < p < 1: P(X ≥ a) of a binomial of a + b − 1 trials."""
    if p > (a + 1) / (a + b + 2):  # on the other side of the mean the fraction converges slowly
        return 1 - beta(1 - p, b, a)
    front = a * math.log(p) + b * math.log1p(-p) - math.log(a)
    front += math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    return math.exp(front) / _fraction(p, a, b)


def _fraction(p: float, a: int, b: int) -> float:
    """1 + d₁/(1 + d₂/(1 + …)), DLMF 8.17.22, by Lentz's method as Thompson & Barnett (1986) give it."""
    value, c, d = 1.0, 1.0, 0.0
    for j in range(1, 100_000):
        m = j // 2
        if j % 2:
            term = -(a + m) * (a + b + m) * p / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            term = m * (b - m) * p / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1 / (_apart(1 + term * d))
        c = _apart(1 + term / c)
        value *= c * d
        if abs(c * d - 1) < CLOSE:
            break
    return value


def _apart(value: float) -> float:
    """Never exactly 0, which is divided by."""
    return value if abs(value) > TINY else TINY


def _root(rising: Callable[[float], float]) -> float:
    """Where a rising function of p in (0, 1) is 0, by halving."""
    low, high = 0.0, 1.0
    while high - low > 1e-14 * high:
        middle = (low + high) / 2
        if rising(middle) < 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2
