"""Evidence around a measurement: the state before, samples while it runs, the state after, what is to be said of it."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edge.evidence.energy import energy
from edge.evidence.judge import judge
from edge.evidence.sampler import Sampler
from edge.evidence.samples import Interval, Samples
from edge.evidence.snapshot import snapshot
from edge.evidence.summary import summary
from edge.evidence.tree import LIVE

REST_S = 1.0  # of nothing, to know what the machine takes when idle


class Watch:
    """The state before, on making it; `with watch.timing(): …` samples; `watch.found(spans, latency)` states it all.

    `gpu`: whether NVML is asked. `sysroot`: a recorded tree instead of this machine.
    """

    def __init__(self, *, gpu: bool = True, sysroot: "Path | str" = LIVE) -> None:
        self._gpu, self._sysroot = gpu, sysroot
        self._before = snapshot(sysroot, gpu=gpu)
        self._idle: Interval | None = None
        self.samples = Samples()

    @contextmanager
    def timing(self) -> Iterator[None]:
        """Sample what happens inside; first, where power can be measured at all, a second in which nothing does."""
        with Sampler(gpu=self._gpu, sysroot=self._sysroot) as sampler:
            if sampler.measures_energy:
                began = time.monotonic_ns()
                time.sleep(REST_S)
                self._idle = began, time.monotonic_ns()
            yield
        self.samples = sampler.samples

    def found(self, spans: Mapping[str, tuple[int, int, int]], latency: Mapping[str, Any]) -> dict[str, Any]:
        """{"machine": {before, during, after}, "warnings": […]} of the statement.

        `spans`: what was timed → beginning and end in ns on the monotonic clock, and its images. The first one is what
        `latency` tells of; of the others the energy alone is kept.
        """
        after = snapshot(self._sysroot, gpu=self._gpu)
        parts = list(spans.items())
        name, (began, ended, images) = parts[0]
        during = {
            "what": name,
            "span_ns": [began, ended],
            **summary(self.samples, (began, ended), idle=self._idle, inferences=images),
            "energy_of_others": {
                other: energy(self.samples, (first, last), self._idle, inferences=count)
                for other, (first, last, count) in parts[1:]
            },
        }
        return {
            "machine": {"before": self._before, "during": during, "after": after},
            "warnings": judge(self._before, during, after, latency),
        }
