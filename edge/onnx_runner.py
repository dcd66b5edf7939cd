"""ONNX Runtime on the CPU."""

import time
from typing import Any

import numpy as np

from compress.errors import CompressError
from edge.runner import Runner

PROVIDER = "CPUExecutionProvider"


class OnnxRunner(Runner):
    """Runs exactly the bytes it is given."""

    def __init__(self, name: str, content: bytes, *, batch_size: int, threads: int) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise CompressError("ONNX Runtime is not installed; run: pip install onnxruntime") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.use_deterministic_compute = True
        options.log_severity_level = 3
        began = time.perf_counter_ns()
        try:
            self.session = onnxruntime.InferenceSession(content, options, providers=[PROVIDER])
        except Exception as fault:  # ONNX Runtime's own classes have no common base
            first = str(fault).strip().splitlines()[0] if str(fault).strip() else type(fault).__name__
            raise CompressError(f"{name}: ONNX Runtime cannot load it ({first})") from None
        opened = (time.perf_counter_ns() - began) / 1e6
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1:
            raise CompressError(
                f"{name}: has {len(inputs)} inputs and {len(outputs)} outputs; a classifier with one of each is needed"
            )
        shape, out = inputs[0].shape, outputs[0].shape
        if len(shape) != 4 or not all(isinstance(size, int) for size in shape[1:]):
            raise CompressError(f"{name}: takes {shape}; (batch, C, H, W) with fixed C, H and W is needed")
        if inputs[0].type != "tensor(float)":
            raise CompressError(f"{name}: takes {inputs[0].type}; a float32 input is needed")
        if len(out) != 2 or not isinstance(out[1], int):
            raise CompressError(f"{name}: gives {out}; logits (batch, K) with a fixed K are needed")
        fixed = shape[0] if isinstance(shape[0], int) else batch_size
        super().__init__(name, (shape[1], shape[2], shape[3]), out[1], fixed)
        self.open_ms = opened
        self.threads, self.version = threads, onnxruntime.__version__
        self.names = inputs[0].name, outputs[0].name

    def describe(self) -> dict[str, Any]:
        return {"name": "onnxruntime", "version": self.version, "provider": PROVIDER, "threads": self.threads}

    def _call(self, batch: np.ndarray) -> np.ndarray:
        source, result = self.names
        logits: np.ndarray = self.session.run([result], {source: batch})[0]
        return logits
