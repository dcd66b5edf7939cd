"""An ONNX graph executed by ONNX's own reference implementation, in numpy."""

import time
from typing import Any

import numpy as np

from edge.core import artifact
from edge.core.artifact import Stage
from edge.core.errors import CompressError
from edge.runtimes.runner import MODEL, Runner, pinned


class ReferenceRunner(Runner):
    """The ONNX graph in `content`; `where` names it in messages."""

    spin_wait = False  # nothing waits: numpy computes in the thread that asks

    def __init__(self, content: bytes, *, where: str, batch_size: int) -> None:
        try:
            import onnx
            from onnx.reference import ReferenceEvaluator
        except ImportError:
            raise CompressError("onnx is not installed, it executes this file; pip install onnx") from None
        began = time.perf_counter_ns()
        proto = onnx.load_from_string(content)
        self._evaluator: Any = ReferenceEvaluator(proto)
        self.open_ms = (time.perf_counter_ns() - began) / 1e6
        self.sha256, self.size = artifact.bytes_sha256(content), len(content)
        (image,), (logits,) = proto.graph.input, proto.graph.output
        _, *shape = (size.dim_value for size in image.type.tensor_type.shape.dim)
        if len(shape) != 3:
            raise CompressError(f"{where}: takes no images (N,C,H,W); export it again")
        self._input, self.input_shape = image.name, (shape[0], shape[1], shape[2])
        self.classes = logits.type.tensor_type.shape.dim[1].dim_value
        self.batch_size = batch_size
        self._content, self._where, self._version = content, where, onnx.__version__

    def again(self, batch_size: int) -> "ReferenceRunner":
        return ReferenceRunner(self._content, where=self._where, batch_size=batch_size)

    def describe(self) -> dict[str, Any]:
        return {"name": "onnx-reference", "version": self._version, "provider": "numpy", "threads": 1}

    def _call(self, batch: np.ndarray) -> np.ndarray:
        (logits,) = self._evaluator.run(None, {self._input: batch})
        return np.asarray(logits, np.float32)


def open_stage(stage: Stage, *, batch_size: int, threads: int, device: str) -> ReferenceRunner:
    """The model of an exported stage, its bytes those of the manifest; numpy chooses its threads itself."""
    return ReferenceRunner(pinned(stage, MODEL), where=str(stage.path), batch_size=batch_size)
