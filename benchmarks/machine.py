"""What every row of a result says about where it was measured."""

import datetime
import os
import platform
from pathlib import Path

from edge.core.artifact import versions


def where() -> dict[str, object]:
    """Date, processor, cores, system and package versions."""
    cpuinfo = Path("/proc/cpuinfo")
    names = [
        line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
    ]
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions(),
    }
