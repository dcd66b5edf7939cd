"""The clock of all timing, the quiet around a timed loop, and the most memory that this process held (Linux).

Standard library only.
"""

import contextlib
import gc
import os
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


def timing_conditions() -> dict[str, Any]:
    """What a reader must know of the harness: {"clock", "garbage_collector", "affinity", "wait"}."""
    affinity = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    return {
        "clock": NAME,
        "garbage_collector": "frozen and off",
        "affinity": affinity,
        "wait": f"asleep until {SPIN_NS / 1e6:g} ms before a frame is due, then spinning",
    }


CLEAR, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
RESET_PEAK = "5"  # proc(5): the high-water mark starts anew from what is held now


def reset_peak_memory() -> bool:
    """Start the high-water mark anew; False where the kernel does not let us."""
    try:
        CLEAR.write_text(RESET_PEAK)
    except OSError:
        return False
    return True


def peak_memory(since_reset: bool) -> dict[str, Any]:
    """{"peak_rss_bytes", "since"}: of the process, everything in it counted."""
    if since_reset:
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return {"peak_rss_bytes": int(line.split()[1]) * 1024, "since": "opening the runtime"}
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"peak_rss_bytes": kib * 1024, "since": "the start of the process"}
