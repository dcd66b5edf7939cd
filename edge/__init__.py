"""The device side: execute an exported classifier, attack it without gradients, time it, state what was found.

numpy and one runtime, Python 3.10 or newer; each is imported when it is used, so that what is missing can be told.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge.runtimes.runner import open_runner

__version__ = "0.1.0"
__all__ = ["open_runner"]


def __getattr__(name: str) -> Any:
    if name != "open_runner":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from edge.runtimes.runner import open_runner

    return open_runner
