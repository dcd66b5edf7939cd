"""Query after query, the next one when the one before is answered: single-stream, offline and the sweep."""

from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.bench.clock import Clock
from edge.bench.kept import Kept
from edge.core.progress import Progress
from edge.runtimes.preprocess import Preprocess
from edge.runtimes.runner import Runner

STEP = 100  # queries between two looks at the progress bar


class Queries:
    """Batches of exactly `size` frames, taken in turn; the last is filled up with its own frames.

    `frames` (N, …) are uint8 images (N,C,H,W) as the model takes them, or whatever `preprocess` takes.
    """

    def __init__(self, frames: Any, size: int, preprocess: "Preprocess | None" = None) -> None:
        self.preprocess = preprocess
        self.batches = [_batch(frames, start, size) for start in range(0, len(frames), size)]

    def images(self, frames: Any) -> Any:
        """What goes into the model."""
        return frames if self.preprocess is None else self.preprocess(frames)


def _batch(frames: Any, start: int, size: int) -> Any:
    part = frames[start : start + size]
    if len(part) == size:
        return np.ascontiguousarray(part) if isinstance(frames, np.ndarray) else part
    places = [i % len(part) for i in range(size)]
    return part[places] if isinstance(frames, np.ndarray) else [part[i] for i in places]


def timed_query(runner: Runner, queries: Queries, frames: Any, clock: Clock) -> "tuple[Any, int, int, int]":
    """Logits of one query, and the ns at which it began, was preprocessed and was answered."""
    began = clock.now()
    images = queries.images(frames)
    ready = clock.now()
    logits = runner.infer(images)
    return logits, began, ready, clock.now()


class Stream:
    """One runner and its queries; every `run` takes more samples."""

    def __init__(self, runner: Runner, queries: Queries, kept: Kept, clock: Clock) -> None:
        self.runner, self.queries, self.kept, self.clock = runner, queries, kept, clock
        self._asked = 0
        self._taken, self._before = array("q"), array("q")
        self.runs: list[tuple[int, int, int]] = []  # ns at its beginning and end, queries

    @property
    def samples_ns(self) -> "npt.NDArray[np.int64]":
        """int64 (n,): from a query's frames to its logits, preprocessing included."""
        return np.array(self._taken, np.int64)

    @property
    def preprocess_ns(self) -> "npt.NDArray[np.int64]":
        """int64 (n,): what of each sample was preprocessing."""
        return np.array(self._before, np.int64)

    @property
    def wall_ns(self) -> int:
        """The time of all runs, what lies between their queries included."""
        return sum(ended - began for began, ended, _ in self.runs)

    def first(self) -> float:
        """The first query's ms: neither warm-up nor sample."""
        _, began, _, ended = timed_query(self.runner, self.queries, self._next(), self.clock)
        return (ended - began) / 1e6

    def warm(self, queries: int, most_seconds: "float | None" = None) -> int:
        """Untimed queries first, of which there are fewer where `most_seconds` pass; how many there were."""
        end = None if most_seconds is None else self.clock.now() + int(most_seconds * 1e9)
        for done in range(queries):
            self.runner.infer(self.queries.images(self._next()))
            if end is not None and self.clock.now() >= end:
                return done + 1
        return queries

    def run(self, queries: int, seconds: float = 0.0, bar: "Progress | None" = None) -> "npt.NDArray[np.int64]":
        """At least so many samples, ns, for at least so long; these of this run."""
        start, least, count = self.clock.now(), int(seconds * 1e9), 0
        ended = start
        while count < queries or ended - start < least:
            frames = self._next()
            logits, began, ready, ended = timed_query(self.runner, self.queries, frames, self.clock)
            self._taken.append(ended - began)
            self._before.append(ready - began)
            self.kept.offer(frames, logits)
            count += 1
            if bar is not None and count <= queries and (count % STEP == 0 or count == queries):
                bar.step((count - 1) % STEP + 1)
        self.runs.append((start, self.clock.now(), count))
        return np.array(self._taken[-count:], np.int64)

    def differing(self) -> tuple[int, int]:
        """How many kept answers there are, and how many of them are other bits when asked again now."""
        again = [self.runner.infer(self.queries.images(frames)) for frames, _ in self.kept.held]
        pairs = zip(self.kept.held, again, strict=True)
        return len(again), sum(not np.array_equal(logits, other) for (_, logits), other in pairs)

    def _next(self) -> Any:
        batches: Sequence[Any] = self.queries.batches
        self._asked += 1
        return batches[(self._asked - 1) % len(batches)]
