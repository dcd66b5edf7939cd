"""One module a stage of the chain: its inputs, what decides its result (`plan`), and how it is made (`run`).

`load(folder)` gives the torch module of a teacher, student or quantized stage; torch is imported by that call alone.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compress.folders import load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    if name != "load":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from compress.folders import load

    return load
