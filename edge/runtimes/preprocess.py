"""A user's own pipeline between camera and model: resize, colour conversion, crop.

    --preprocess module:function

    def function(frames):  # a query's frames as the camera delivers them: uint8 (N, …), or a list of N arrays
        return images      # (N,C,H,W) as the model takes them: uint8, or float32 in [0, 1]

    def frames(images):    # in the same module, not needed beside --frames FILE.npy
        return frames      # frames (N, …) of uint8 images (N,C,H,W): what the pipeline would have been given for them

The module is looked for beside the working directory too. numpy alone.
"""

import contextlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.core import artifact
from edge.core.errors import CompressError
from edge.core.user_code import in_words, load_function, raise_user_fault, user_code

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
        try:  # no context around it: this is timed
            return self._function(frames)
        except (Exception, SystemExit) as fault:
            raise_user_fault(fault, f"--preprocess {self.name}", "correct the function", f" on {_described(frames)}")

    def checked(self, frames: Any, shape: tuple[int, int, int]) -> "npt.NDArray[Any]":
        """As a call; anything but N images of this shape, uint8 or float32 in [0, 1], is a CompressError."""
        with contextlib.redirect_stdout(sys.stderr):
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
        with user_code(f"--preprocess {self.name}: {name}", "correct the function", f" on {_described(images)}"):
            frames = self._inverse(images)
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
    module, pipeline = load_function(name, f"--preprocess {name}")
    inverse = getattr(module, INVERSE, None)
    return Preprocess(name, pipeline, inverse if callable(inverse) else None)


def read_frames(path: "Path | str") -> "npt.NDArray[np.uint8]":
    """Frames (N, …) of an npy file, uint8, mapped into memory."""
    try:
        frames = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as fault:
        raise CompressError(f"--frames {path}: not readable as an npy file ({in_words(fault)})") from None
    if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8 or frames.ndim < 2 or not len(frames):
        got = f"{frames.dtype} {frames.shape}" if isinstance(frames, np.ndarray) else "several arrays"
        raise CompressError(f"--frames {path}: holds {got}; uint8 (N, …) is needed, a frame a row")
    return frames


def _described(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}"
    return f"{len(value)} frames" if isinstance(value, list | tuple) else f"a {type(value).__name__}"
