"""The most memory that this process held. Linux."""

import resource
from pathlib import Path
from typing import Any

CLEAR, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
RESET_PEAK = "5"  # proc(5): the high-water mark starts anew from what is held now


def reset() -> bool:
    """Start the high-water mark anew; False where the kernel does not let us."""
    try:
        CLEAR.write_text(RESET_PEAK)
    except OSError:
        return False
    return True


def peak(since_reset: bool) -> dict[str, Any]:
    """{"peak_rss_bytes", "since"}: of the process, everything in it counted."""
    if since_reset:
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return {"peak_rss_bytes": int(line.split()[1]) * 1024, "since": "opening the runtime"}
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"peak_rss_bytes": kib * 1024, "since": "the start of the process"}
