"""Two shares of the same images: McNemar's exact test and an interval of their difference. Standard library only."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

MAX_HALVINGS = 200


@dataclass(frozen=True)
class Pairs:
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
            "interval": list(interval(self, level)),
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


def interval(pairs: Pairs, level: float = 0.95) -> tuple[float, float]:
    """Tango's score interval of the difference (Statistics in Medicine 17, 1998, 891-908), inside [-1, 1].

    The differences that the score test does not reject. Unlike a bootstrap it keeps a width where no pair differs: n
    images cannot tell a difference of less than about 3.84 / n from none.
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    found = pairs.difference
    low = _where(lambda delta: score(pairs, delta) <= z, -1.0, found)
    high = -_where(lambda delta: score(pairs, -delta) >= -z, -1.0, -found)
    return low, high


def score(pairs: Pairs, delta: float) -> float:
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
