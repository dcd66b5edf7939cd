"""Evidence around a measurement: the state before, samples while it runs, the state after, what is to be said of it.

The samples are taken by a process of its own (`edge.evidence.channels`) that begins, watches and ends with this one.
"""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

import edge
from edge.core.progress import say
from edge.evidence.samples import Interval, Samples, sample_summary, timed_energy
from edge.evidence.snapshot import snapshot
from edge.evidence.tree import LIVE
from edge.evidence.warnings import machine_warnings

REST_S = 1.0  # of nothing, to know what the machine takes when idle


class Watch:
    """The state before, on making it; `with watch.timing(): …` samples; `watch.found(spans, …)` states it all.

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

    def found(
        self, spans: Mapping[str, tuple[int, int, int]], spread: "float | None", load: "Mapping[str, Any] | None"
    ) -> dict[str, Any]:
        """{"machine": {before, during, after}, "warnings": […]} of the statement.

        `spans`: what was timed → beginning and end in ns on the monotonic clock, and its images. The first one is what
        `spread`, the coefficient of variation of latency, tells of; of the others the energy alone is kept. `load` is
        what was asked to run beside it.
        """
        after = snapshot(self._sysroot, gpu=self._gpu)
        parts = list(spans.items())
        name, (began, ended, images) = parts[0]
        during = {
            "what": name,
            "span_ns": [began, ended],
            **sample_summary(self.samples, (began, ended), idle=self._idle, inferences=images),
            "energy_of_others": {
                other: timed_energy(self.samples, (first, last), self._idle, inferences=count)
                for other, (first, last, count) in parts[1:]
            },
        }
        return {
            "machine": {"before": self._before, "during": during, "after": after},
            "warnings": machine_warnings(self._before, during, after, spread, load),
        }


# ------------------------------------------------------------------------------------- the sampling process, from here


INTERVAL_S = 0.05
PATIENCE_S = 30.0  # for a process to start or to end on a busy board
COMMAND = (sys.executable, "-m", "edge.evidence.channels")


class Sampler:
    """`with Sampler() as sampler: …`, then `sampler.samples`. Evidence is no reason to lose a measurement: without a
    process there are no samples, and `samples.about["fault"]` says why.

    `command` starts the sampling process, arguments are appended; a file that holds everything gives its own, such as
    (sys.executable, "edge.pyz", "sample"). `gpu`: whether NVML is asked. `sysroot`: a recorded tree.
    """

    def __init__(
        self,
        *,
        interval_s: float = INTERVAL_S,
        gpu: bool = True,
        sysroot: "Path | str" = "/",
        command: Sequence[str] = COMMAND,
    ) -> None:
        options = ["--interval", str(interval_s), "--parent", str(os.getpid()), "--sysroot", str(sysroot)]
        self._command = [*command, *options, "--gpu" if gpu else "--no-gpu"]
        self._process: subprocess.Popen[bytes] | None = None
        self.about: dict[str, Any] = {}
        self.samples = Samples()

    def __enter__(self) -> "Sampler":
        """Returns when sampling has begun."""
        try:
            # The package is found there, in a folder or in a zip file; numpy starts no threads of its own.
            places = [str(Path(edge.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
            threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
            environment = {**os.environ, **threads, "PYTHONPATH": os.pathsep.join(filter(None, places))}
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
            )
        except OSError as fault:
            self._failed(f"{self._command[0]} cannot be started ({fault.strerror})")
            return self
        line = self._patiently(self._process.stdout.readline) if self._process.stdout else b""
        try:
            self.about = {key: json.loads(line)[key] for key in ("channels", "ranges", "unreadable")}
        except (ValueError, KeyError, TypeError):
            # It did not begin: its last words say why.
            process, self._process = self._process, None
            if process is not None:
                process.kill()
                words = (process.stderr.read() if process.stderr else b"").decode(errors="replace").strip().splitlines()
                _close(process)
                self._failed(f"the sampling process did not begin ({words[-1][:200] if words else 'it said nothing'})")
        return self

    def __exit__(
        self, kind: "type[BaseException] | None", fault: "BaseException | None", trace: "TracebackType | None"
    ) -> None:
        if self._process is not None:
            self.samples = self._fetch()

    @property
    def channels(self) -> list[str]:
        """What is sampled; empty where nothing is."""
        return list(self.about.get("channels", ()))

    @property
    def measures_energy(self) -> bool:
        return any(name.startswith(("mw.", "mj.")) for name in self.channels)

    def _fetch(self) -> Samples:
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            return self.samples
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        content = self._patiently(process.stdout.read)
        self._process = None
        _close(process)
        line, _, rows = content.partition(b"\n")
        try:
            counts = json.loads(line)
            shape = (int(counts["n"]), len(self.channels))
            times, values = rows[: 8 * shape[0]], rows[8 * shape[0] :]
            table = np.frombuffer(values, np.float64).reshape(shape)
            stamps = np.frombuffer(times, np.int64)
        except (ValueError, KeyError, TypeError):
            return self._failed("the sampling process ended before its time")
        about = {**counts, "ranges": self.about["ranges"], "unreadable": self.about["unreadable"]}
        return Samples(stamps, {name: table[:, i] for i, name in enumerate(self.channels)}, about)

    def _failed(self, why: str) -> Samples:
        say(f"no samples of clocks, heat and power: {why}")
        self.samples = Samples(about={"fault": why})
        return self.samples

    def _patiently(self, read: Any) -> bytes:
        """What `read` gives; a process that hangs is ended, so that it gives what there is."""
        process = self._process
        timer = threading.Timer(PATIENCE_S, process.kill if process else lambda: None)
        timer.daemon = True
        timer.start()
        try:
            return bytes(read())
        finally:
            timer.cancel()


def _close(process: "subprocess.Popen[bytes]") -> None:
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None and not pipe.closed:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
