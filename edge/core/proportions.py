"""Shares and their differences, without scipy: the exact binomial interval, McNemar's exact test of two shares of the
same images, and Tango's interval of their difference. Standard library only.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

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
    # 1 + d₁/(1 + d₂/(1 + …)), DLMF 8.17.22, by Lentz's method as Thompson & Barnett (1986) give it
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
    return math.exp(front) / value


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


MAX_HALVINGS = 200


@dataclass(frozen=True)
class PairedShares:
    """n images judged twice: `lost` held at first and no longer, `gained` the other way round."""

    lost: int
    gained: int
    n: int

    @property
    def difference(self) -> float:
        """Second share minus the first."""
        return (self.gained - self.lost) / self.n

    def as_dict(self, level: float = 0.95) -> dict[str, Any]:
        return {
            "difference": self.difference,
            "interval": list(tango_interval(self, level)),
            "level": level,
            "lost": self.lost,
            "gained": self.gained,
            "n": self.n,
            "p": mcnemar(self.lost, self.gained),
        }


def mcnemar(lost: int, gained: int) -> float:
    """McNemar's exact test, two-sided: the p-value of so uneven a split of the discordant pairs; 1 where none is."""
    pairs, ways, tail = lost + gained, 1, 0
    for k in range(min(lost, gained) + 1):
        tail += ways  # pairs over k
        ways = ways * (pairs - k) // (k + 1)
    return min(1.0, 2 * tail / 2**pairs)  # one division of integers: nothing is rounded before it


def tango_interval(pairs: PairedShares, level: float = 0.95) -> tuple[float, float]:
    """Tango's score interval of the difference (Statistics in Medicine 17, 1998, 891-908), inside [-1, 1].

    The differences that the score test does not reject. Unlike a bootstrap it keeps a width where no pair differs: n
    images cannot tell a difference of less than about 3.84 / n from none.
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    difference = pairs.difference
    low = _where(lambda delta: score_statistic(pairs, delta) <= z, -1.0, difference)
    high = -_where(lambda delta: score_statistic(pairs, -delta) >= -z, -1.0, -difference)
    return low, high


def score_statistic(pairs: PairedShares, delta: float) -> float:
    """How many standard errors the difference found lies above `delta`, by the variance that `delta` implies."""
    n, gained, lost = pairs.n, pairs.gained, pairs.lost
    above = gained - lost - n * delta
    if above == 0:
        return 0.0
    # the most likely share of lost pairs, given the difference: the larger root of 2n q² + b q + c
    b = (2 * n - gained + lost) * delta - gained - lost
    c = -lost * delta * (1 - delta)
    q = (math.sqrt(max(b * b - 8 * n * c, 0.0)) - b) / (4 * n)
    variance = n * (2 * q + delta * (1 - delta))
    return above / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, above)


def _where(holds: Callable[[float], bool], outside: float, inside: float) -> float:
    """The end of the stretch from `inside` towards `outside` on which `holds`, by halving."""
    if holds(outside):
        return outside
    for _ in range(MAX_HALVINGS):
        middle = (outside + inside) / 2
        if middle in (outside, inside):
            break
        if holds(middle):
            inside = middle
        else:
            outside = middle
    return inside
