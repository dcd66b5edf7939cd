"""Two artifacts timed in turns: how their medians stand to each other, with an interval."""

from dataclasses import dataclass
from typing import Any

import numpy as np

LEVEL = 0.95
RESAMPLES = 2000


@dataclass(frozen=True)
class Rounds:
    """A median latency a turn of two artifacts, in the same order."""

    these: "list[float]"
    those: "list[float]"

    def ratio(self, seed: int = 0) -> dict[str, Any]:
        """The geometric mean over turns of these / those, and its percentile bootstrap interval.

        Turns are drawn anew, not queries: queries of one turn share the machine's mood and are no independent draws.
        """
        logs = np.log(np.array(self.these)) - np.log(np.array(self.those))
        draws = np.random.default_rng(seed).integers(0, len(logs), (RESAMPLES, len(logs)))
        tail = 50 * (1 - LEVEL)
        low, high = np.exp(np.percentile(logs[draws].mean(1), (tail, 100 - tail)))
        return {
            "ratio": float(np.exp(logs.mean())),
            "interval": [float(low), float(high)],
            "level": LEVEL,
            "turns": len(logs),
        }
