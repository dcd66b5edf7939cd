"""Query after query, the next one when the one before is answered: single-stream, offline and the sweep.

Some answers are kept, to be asked again afterwards: an answer that timing changes is no answer. Of runners that can
tell, where a query's time goes: copy in, computation, copy out, and the host's rest.
"""

import math
import random
from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.bench.harness import TimingClock
from edge.core.progress import Progress
from edge.runtimes.preprocess import Preprocess
from edge.runtimes.runner import FULL_SCALE, Runner
from edge.statement.statement import Alarm
from edge.statement.timing import QueryParts
from edge.validity import rules

KEPT_MOST = 32


class KeptAnswers:
    """A uniform sample of at most `most` offered answers; one offer costs a comparison (Li 1994, algorithm L)."""

    def __init__(self, seed: int = 0, most: int = KEPT_MOST) -> None:
        self._draw, self._most = random.Random(seed), most
        self._seen, self._due, self._weight = 0, 0, 1.0
        self.held: list[tuple[Any, npt.NDArray[np.float32]]] = []  # the query's frames, its logits

    def offer(self, frames: Any, logits: "npt.NDArray[np.float32]") -> None:
        """One more answer; a copy of its logits is kept or not."""
        number = self._seen
        self._seen += 1
        if number < self._due:
            return
        if len(self.held) < self._most:
            self.held.append((frames, logits.copy()))
            self._due += 1
            if len(self.held) == self._most:
                self._skip()
            return
        self.held[self._draw.randrange(self._most)] = (frames, logits.copy())
        self._due += 1
        self._skip()

    def _skip(self) -> None:
        """Set how many offers pass before the next one is kept."""
        self._weight *= math.exp(math.log(1 - self._draw.random()) / self._most)
        self._due += math.floor(math.log(1 - self._draw.random()) / math.log1p(-self._weight))


def timed_logits_alarm(n: int, different: int) -> Alarm:
    """One of the statement's alarms: answers during timing that were not the same bits when asked again."""
    return Alarm(
        name=rules.TIMED,
        fired=different > 0,
        count=different,
        threshold=0,
        interval=None,
        meaning=f"{different} of {n} queries sampled during timing got other logits when asked again untimed",
    )


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


def timed_query(runner: Runner, queries: Queries, frames: Any, clock: TimingClock) -> "tuple[Any, int, int, int]":
    """Logits of one query, and the ns at which it began, was preprocessed and was answered."""
    began = clock.now()
    images = queries.images(frames)
    ready = clock.now()
    logits = runner.infer(images)
    return logits, began, ready, clock.now()


class Stream:
    """One runner and its queries; every `run` takes more samples."""

    def __init__(self, runner: Runner, queries: Queries, kept: KeptAnswers, clock: TimingClock) -> None:
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


PARTS_MOST = 200
DEVICE_PARTS = ("h2d_ms", "compute_ms", "d2h_ms")


def query_parts(stream: Stream) -> "QueryParts | None":
    """Medians over queries of their own, since looking inside costs time; None of a runner that cannot tell.

    A runner that can has `timed_call(batch) -> (logits, {"h2d_ms", "compute_ms", "d2h_ms"})`, float32 in [0, 1].
    """
    call = getattr(stream.runner, "timed_call", None)
    if call is None:
        return None
    rows, batches, clock = [], stream.queries.batches, stream.clock
    for i in range(min(PARTS_MOST, len(stream.samples_ns))):
        began = clock.now()
        images = stream.queries.images(batches[i % len(batches)])
        unit = images if images.dtype == np.float32 else images.astype(np.float32) / FULL_SCALE
        _, parts = call(unit)
        total = (clock.now() - began) / 1e6
        device = [float(parts[name]) for name in DEVICE_PARTS]
        rows.append([*device, total - sum(device), total])
    return QueryParts(len(rows), *map(float, np.median(np.array(rows), 0)))
