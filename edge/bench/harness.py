"""What stands around a timed loop: the clock, the quiet, the most memory that this process held (Linux), and what runs
beside it when that is asked for: busy processes, or a command of the user's. Standard library only.
"""

import contextlib
import gc
import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.core.errors import CompressError
from edge.statement.timing import PeakMemory, TimingConditions

SPIN_NS = 1_000_000  # a sleeping process wakes late; the last stretch before a moment is spent awake
NAME = "perf_counter_ns"


@dataclass(frozen=True)
class TimingClock:
    """Monotonic nanoseconds, and how to wait for them."""

    now: Callable[[], int] = time.perf_counter_ns
    sleep: Callable[[float], None] = time.sleep  # seconds

    def until(self, moment: int) -> None:
        """Return at `moment`, ns, or as soon after it as possible; at once where it has passed."""
        left = moment - SPIN_NS - self.now()
        if left > 0:
            self.sleep(left / 1e9)
        while self.now() < moment:
            pass


@contextlib.contextmanager
def quiet_harness() -> Iterator[None]:
    """No garbage collection inside: what is alive is set aside and the collector is off; afterwards as before."""
    enabled = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if enabled:
            gc.enable()


def timing_conditions(*, cuda_graph: bool, spin_wait: "bool | None") -> TimingConditions:
    """What a reader must know of the harness and of how the runtime was called."""
    return TimingConditions(
        clock=NAME,
        garbage_collector="frozen and off",
        affinity=sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        wait=f"asleep until {SPIN_NS / 1e6:g} ms before a frame is due, then spinning",
        cuda_graph=cuda_graph,
        spin_wait=spin_wait,
    )


CLEAR, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
RESET_PEAK = "5"  # proc(5): the high-water mark starts anew from what is held now


def reset_peak_memory() -> bool:
    """Start the high-water mark anew; False where the kernel does not let us."""
    try:
        CLEAR.write_text(RESET_PEAK)
    except OSError:
        return False
    return True


def peak_memory(since_reset: bool) -> PeakMemory:
    """Of the process, everything in it counted."""
    if since_reset:
        for line in STATUS.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return PeakMemory(int(line.split()[1]) * 1024, "opening the runtime")
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return PeakMemory(kib * 1024, "the start of the process")


# ---------------------------------------------------------------------------------------------------------------- load


#: Says that it runs, then computes until its parent is gone.
BUSY = """
import os, sys
parent = os.getppid()
sys.stdout.write("1"); sys.stdout.flush()
while os.getppid() == parent:
    sum(range(100_000))
"""
SETTLE_S = 0.2


def check_load(asked: "str | None") -> None:
    """Whether `asked` can be started at all: N processes from 1 on, or a command that is installed."""
    if asked is None:
        return
    if asked.strip().isdigit():
        if int(asked) < 1:
            raise CompressError(f"--load {asked}: a number of busy processes, at least 1, or a command is needed")
        return
    _split(asked)


@contextlib.contextmanager
def load_running(asked: "str | None") -> "Iterator[dict[str, Any] | None]":
    """`asked` runs inside; what it is as {"processes"} or {"command"}, None where nothing is asked."""
    if asked is None:
        yield None
        return
    check_load(asked)
    number = asked.strip()
    command = not number.isdigit()
    started = [_command(asked)] if command else _busy(int(number))
    try:
        yield {"command": asked} if command else {"processes": int(number)}
        if command and started[0].poll() is not None:
            raise CompressError(
                f"--load {asked!r}: ended before the measurement did (exit code {started[0].returncode}); "
                "give a command that runs longer"
            )
    finally:
        for process in started:
            # the process and all that it started
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


def _split(command: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError as fault:
        raise CompressError(f"--load {command!r}: {fault}; quote it as for a shell") from None
    if not words or shutil.which(words[0]) is None:
        raise CompressError(f"--load {command!r}: no such program; give a number of busy processes or a command")
    return words


def _command(command: str) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(
        _split(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    time.sleep(SETTLE_S)
    if process.poll() is not None:
        raise CompressError(
            f"--load {command!r}: ended at once (exit code {process.returncode}); give a command that keeps running"
        )
    return process


def _busy(count: int) -> "list[subprocess.Popen[bytes]]":
    arguments = [sys.executable, "-I", "-S", "-c", BUSY]
    started = [
        subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True)
        for _ in range(count)
    ]
    for process in started:
        assert process.stdout is not None
        process.stdout.read(1)
    return started
