"""One interface to every deployed model: images in, logits out, always in batches of one size."""

from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from compress import artifact
from compress.errors import CheckFailed, CompressError

MODEL = "model.onnx"
BATCH_SIZE = 64


class Runner:
    """A model of fixed input (C,H,W) and K classes. A runtime supplies `_call`; use as a context manager.

    The runtime always sees exactly `batch_size` images, the last batch padded: kernels differ with the batch, so a
    verdict belongs to one batch size.
    """

    def __init__(self, name: str, input_shape: tuple[int, int, int], classes: int, batch_size: int) -> None:
        self.name, self.input_shape, self.classes, self.batch_size = name, input_shape, classes, batch_size
        self.open_ms = 0.0

    def __enter__(self) -> "Runner":
        return self

    def __exit__(self, kind: Any, fault: Any, trace: "TracebackType | None") -> None:
        self.close()

    def infer(self, x: np.ndarray) -> np.ndarray:
        """Images (N,C,H,W), float32 in [0, 1] or uint8, any N → logits float32 (N,K)."""
        images = self._checked(x)
        logits = np.empty((len(images), self.classes), np.float32)
        for begin in range(0, len(images), self.batch_size):
            part = images[begin : begin + self.batch_size]
            short = self.batch_size - len(part)
            full = np.concatenate([part, np.zeros((short, *self.input_shape), np.float32)]) if short else part
            logits[begin : begin + len(part)] = self._call(np.ascontiguousarray(full))[: len(part)]
        bad = int((~np.isfinite(logits).all(1)).sum())
        if bad:
            raise CheckFailed(f"{self.name}: logits of {bad} of {len(x)} images are not finite; export the model again")
        return logits

    def describe(self) -> dict[str, Any]:
        """{"name", "version", "provider", "threads"} of the runtime."""
        raise NotImplementedError

    def close(self) -> None:
        """Give the runtime's memory back."""

    def _call(self, batch: np.ndarray) -> np.ndarray:
        """float32 (batch_size,C,H,W) → logits (batch_size,K)."""
        raise NotImplementedError

    def _checked(self, x: np.ndarray) -> np.ndarray:
        if x.ndim != 4 or x.shape[1:] != self.input_shape:
            raise CompressError(f"{self.name}: takes images (N, {_shape(self.input_shape)}), got {x.shape}")
        if x.dtype == np.uint8:
            return x.astype(np.float32) / np.float32(255)
        if x.dtype != np.float32:
            raise CompressError(f"{self.name}: takes float32 in [0, 1] or uint8, got {x.dtype}; convert the images")
        if not np.isfinite(x).all():
            raise CompressError(f"{self.name}: the images hold values that are not finite")
        return x


def _shape(shape: tuple[int, int, int]) -> str:
    return ", ".join(str(size) for size in shape)


def open_runner(where: "Path | str", *, batch_size: int = BATCH_SIZE, threads: int = 0) -> Runner:
    """The model in an exported stage folder (its hashes checked) or in a .onnx file. `threads` 0: all cores.

    A file whose batch dimension is fixed is run at that batch, whatever `batch_size` says.
    """
    path = Path(where)
    if path.suffix == ".onnx":
        if not path.is_file():
            raise CompressError(f"{path}: no such file; give an exported folder or an .onnx file")
        content = path.read_bytes()
    elif path.is_file():
        raise CompressError(f"{path}: not an .onnx file; give an exported folder or an .onnx file")
    else:
        stage = artifact.read(path, ("exported",))
        path, want = stage.file(MODEL), stage.manifest["payload"][MODEL]["sha256"]
        content = path.read_bytes()
        if artifact.bytes_sha256(content) != want:
            raise CompressError(f"{path}: changed while it was being opened; try again")
    from edge.onnx_runner import OnnxRunner

    return OnnxRunner(str(path), content, batch_size=batch_size, threads=threads)
