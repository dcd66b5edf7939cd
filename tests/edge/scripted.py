"""A clock that stands still until it is moved, and runners that move it by what their calls are told to take."""

from collections.abc import Iterable, Iterator

import numpy as np

from edge.runtimes.runner import Runner


class FakeClock:
    """As `edge.bench.harness.TimingClock`, in whole nanoseconds; `waits` are the moments that were waited for."""

    def __init__(self) -> None:
        self.moment, self.waits = 0, list[int]()

    def now(self) -> int:
        return self.moment

    def until(self, moment: int) -> None:
        self.waits.append(moment)
        self.moment = max(self.moment, moment)


class Scripted(Runner):
    """Each call of infer takes the next of `durations`, ns, on the clock, and notes what it was given."""

    input_shape, classes, sha256, open_ms = (1, 2, 2), 2, "0" * 64, 7.0

    def __init__(self, clock: FakeClock, durations: "Iterable[int] | None" = None, batch_size: int = 1) -> None:
        self.clock, self.batch_size, self.asked = clock, batch_size, list[np.ndarray]()
        self._durations: Iterator[int] = iter(durations) if durations is not None else _growing()

    def infer(self, x: np.ndarray) -> np.ndarray:
        self.asked.append(x)
        self.clock.moment += next(self._durations)
        return np.zeros((len(x), 2), np.float32)

    def describe(self) -> dict[str, object]:
        return {"name": "scripted", "version": "1", "provider": "none", "threads": 1}


def _growing() -> Iterator[int]:
    """1 µs, 2 µs, 3 µs, …"""
    count = 0
    while True:
        count += 1
        yield 1000 * count


def images(count: int = 10) -> np.ndarray:
    """uint8 (count,1,2,2), the first pixel of image i is 4 i."""
    return np.arange(4 * count, dtype=np.uint8).reshape(count, 1, 2, 2)
