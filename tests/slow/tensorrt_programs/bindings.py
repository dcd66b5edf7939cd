"""What TensorRT's own Python bindings have: names on stdin, as JSON on stdout whether each exists and its docstring.

The bindings are on PYTHONPATH and stand-ins for the libraries behind them on LD_LIBRARY_PATH; nothing is called.
"""

import json
import os
import sys
from typing import Any

sys.setdlopenflags(os.RTLD_LAZY)

import tensorrt_bindings  # type: ignore[import-not-found]  # noqa: E402

from edge.core.progress import Progress  # noqa: E402
from edge.runtimes.tensorrt import build, library  # noqa: E402


def main() -> None:
    found = library.wrap_library("tensorrt", tensorrt_bindings)
    build.progress_monitor(tensorrt_bindings, build.Phases(Progress("engine", 100)))
    about = {
        "version": found.version,
        "weakly_typed": found.weakly_typed,
        "network_flags": found.network_flags,
        "hardware_levels": sorted(found.hardware_levels),
        "ahead_of_time": found.ahead_of_time,
        "validity": found.validity,
    }
    print(json.dumps({"library": about, "names": {name: looked_up(name) for name in json.load(sys.stdin)}}))


def looked_up(name: str) -> "str | None":
    """The docstring of `Class.member`, None where there is no such thing."""
    found: Any = tensorrt_bindings
    for part in name.split("."):
        if not hasattr(found, part):
            return None
        found = getattr(found, part)
    return str(found.__doc__)


if __name__ == "__main__":
    main()
