"""A user's own pipeline between camera and model: resize, colour conversion, crop.

    --preprocess module:function

    def function(frames):  # a query's frames as the camera delivers them: uint8 (N, …), or a list of N arrays
        return images      # (N,C,H,W) as the model takes them: uint8, or float32 in [0, 1]

    def frames(images):    # in the same module, not needed beside --frames FILE.npy
        return frames      # frames (N, …) of uint8 images (N,C,H,W): what the pipeline would have been given for them

The module is looked for beside the working directory too. numpy alone.
"""

import contextlib
import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.core import artifact
from edge.core.errors import CompressError

INVERSE = "frames"


class Preprocess:
    """`function` of a module; called with a query's frames, it gives images, and its faults bear its name.

    `file` is where its source stands and `sha256` that file's, None where it has none.
    """

    def __init__(self, name: str, function: Callable[[Any], Any], inverse: "Callable[[Any], Any] | None") -> None:
        self.name, self._function, self._inverse = name, function, inverse
        self.file: Path | None = None
        self.sha256: str | None = None
        with contextlib.suppress(OSError, TypeError):
            file = Path(inspect.getsourcefile(function) or "")
            self.sha256, self.file = artifact.file_sha256(file), file

    def __call__(self, frames: Any) -> Any:
        """What the function makes of the frames, not looked at."""
        try:
            return self._function(frames)
        except Exception as fault:  # it is the user's code, whatever it raises
            raise CompressError(
                f"--preprocess {self.name}: raises {_words(fault)} on {_described(frames)}; correct the function"
            ) from None

    def checked(self, frames: Any, shape: tuple[int, int, int]) -> "npt.NDArray[Any]":
        """As a call; anything but N images of this shape, uint8 or float32 in [0, 1], is a CompressError."""
        images = self(frames)
        wanted = f"{(len(frames), *shape)}, uint8 or float32 in [0, 1]"
        if not isinstance(images, np.ndarray):
            raise CompressError(f"--preprocess {self.name}: gives a {type(images).__name__}; return an array: {wanted}")
        if images.dtype not in (np.uint8, np.float32) or images.shape != (len(frames), *shape):
            raise CompressError(f"--preprocess {self.name}: gives {images.dtype} {images.shape}; return {wanted}")
        if images.dtype == np.float32 and not (images >= 0).all() & (images <= 1).all():
            low, high = float(images.min()), float(images.max())
            raise CompressError(f"--preprocess {self.name}: gives values in [{low:g}, {high:g}]; return {wanted}")
        return images

    def frames_of(self, images: "npt.NDArray[np.uint8]") -> Any:
        """The frames (N, …) that the pipeline would have been given for uint8 images (N,C,H,W)."""
        if self._inverse is None:
            module = self.name.partition(":")[0]
            raise CompressError(
                f"--preprocess {self.name}: {module} has no function {INVERSE}(images) that gives images' frames; "
                "write one, or give --frames FILE.npy"
            )
        name = f"{self.name.partition(':')[0]}:{INVERSE}"
        try:
            frames = self._inverse(images)
        except Exception as fault:  # it is the user's code, whatever it raises
            raise CompressError(
                f"--preprocess {self.name}: {name} raises {_words(fault)} on {_described(images)}; correct the function"
            ) from None
        if not hasattr(frames, "__len__") or len(frames) != len(images):
            raise CompressError(
                f"--preprocess {self.name}: {name} gives {_described(frames)} for {len(images)} images; "
                "return one frame for each"
            )
        return frames


def load(name: str) -> Preprocess:
    """The function written `module:function`; one that is not there is a CompressError."""
    module_name, colon, function = name.partition(":")
    if not colon or not module_name or not function:
        raise CompressError(f"--preprocess {name}: module:function is needed, e.g. nv12:to_rgb")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except Exception as fault:  # it is the user's code, whatever it raises
        raise CompressError(
            f"--preprocess {name}: {module_name} cannot be imported ({_words(fault)}); "
            "run where it can be, or set PYTHONPATH"
        ) from None
    pipeline, inverse = getattr(module, function, None), getattr(module, INVERSE, None)
    if not callable(pipeline):
        known = ", ".join(key for key, value in vars(module).items() if inspect.isfunction(value)) or "none"
        raise CompressError(f"--preprocess {name}: {module_name} has no function {function} (it has: {known})")
    return Preprocess(name, pipeline, inverse if callable(inverse) else None)


def read_frames(path: "Path | str") -> "npt.NDArray[np.uint8]":
    """Frames (N, …) of an npy file, uint8, mapped into memory."""
    try:
        frames = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as fault:
        raise CompressError(f"--frames {path}: not readable as an npy file ({_words(fault)})") from None
    if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8 or frames.ndim < 2 or not len(frames):
        got = f"{frames.dtype} {frames.shape}" if isinstance(frames, np.ndarray) else "several arrays"
        raise CompressError(f"--frames {path}: holds {got}; uint8 (N, …) is needed, a frame a row")
    return frames


def _words(fault: Exception) -> str:
    first = next(iter(str(fault).strip().splitlines()), "")[:200]
    return f"{type(fault).__name__}: {first}" if first else type(fault).__name__


def _described(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}"
    return f"{len(value)} frames" if isinstance(value, list | tuple) else f"a {type(value).__name__}"
