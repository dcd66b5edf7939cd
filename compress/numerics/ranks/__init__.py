"""Several processes as one, started by torchrun: who they are, what they exchange, what happens when one is lost.

Without torchrun's environment there is one rank, and everything here is the identity.
"""

from compress.numerics.ranks.group import RankLost, broadcast, gather, here, instead, largest, rank, started, world
from compress.numerics.ranks.rows import gather_rows, reduce_gradients, share, shares, total
from compress.numerics.ranks.stage import build

__all__ = [
    "RankLost",
    "broadcast",
    "build",
    "gather",
    "gather_rows",
    "here",
    "instead",
    "largest",
    "rank",
    "reduce_gradients",
    "share",
    "shares",
    "started",
    "total",
    "world",
]
