"""Numbers made of raw samples; and of two artifacts timed in turns, how their medians stand to each other."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.statement.timing import LatencyFigures, Throughput, TimingFigures

PERCENTILES = (50, 90, 95, 99)
P999_FROM = 5000
BRIEF = (50, 99)


def percentiles(samples_ns: "npt.NDArray[np.int64]", which: "tuple[int, ...]" = PERCENTILES) -> dict[str, Any]:
    """`p50_ms`, … by linear interpolation; p99.9 only from 5,000 samples."""
    ms = samples_ns / 1e6
    times = {f"p{p}_ms": float(np.percentile(ms, p)) for p in which}
    if len(ms) >= P999_FROM and which == PERCENTILES:
        times["p999_ms"] = float(np.percentile(ms, 99.9))
    return times


def latency_summary(samples_ns: "npt.NDArray[np.int64]", inside: str, opened: TimingFigures) -> LatencyFigures:
    """What is known of the opened artifact, with percentiles and spread of its single-stream samples."""
    ms = samples_ns / 1e6
    return LatencyFigures(
        **vars(opened),
        **percentiles(samples_ns),
        n=len(ms),
        inside=inside,
        mean_ms=float(ms.mean()),
        min_ms=float(ms.min()),
        max_ms=float(ms.max()),
        cv=float(ms.std() / ms.mean()),
        images_per_s=opened.batch_size * 1000 / float(ms.mean()),
    )


def throughput(samples_ns: "npt.NDArray[np.int64]", wall_ns: int, batch_size: int) -> Throughput:
    """Images a second over the whole time, what lies between the queries included; and what a query took."""
    return Throughput(
        **percentiles(samples_ns, BRIEF),
        batch_size=batch_size,
        n=len(samples_ns),
        seconds=wall_ns / 1e9,
        images_per_s=batch_size * len(samples_ns) / (wall_ns / 1e9),
    )


LEVEL = 0.95
RESAMPLES = 2000


@dataclass(frozen=True)
class PairedTurns:
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
