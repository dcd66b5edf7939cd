"""What must be installed on a board, and the command that installs it there."""

import platform
from importlib.util import find_spec

from edge.core.errors import CompressError
from edge.runtimes.tensorrt.library import remedy

MODULES = {"onnx": "onnxruntime", "tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}


def runtime(target: str) -> None:
    """CompressError where the runtime of that target is missing."""
    module = MODULES.get(target)
    if module is not None and find_spec(module) is None:
        raise CompressError(
            f"{_here()} has no {module}, which executes {target} artifacts; there: {_fix(target, module)}"
        )


def _fix(target: str, module: str) -> str:
    if module != "onnxruntime":
        return remedy(target)
    return "python3 -m pip install onnxruntime (or give --python, one that has it)"


def _here() -> str:
    return f"Python {platform.python_version()} on {platform.node()}"
