"""The made-up target on the machine that executes it."""

import hashlib
import time
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from edge.core.artifact import Stage
from edge.doctor import Capability, MachineFacts, TargetDoctor
from edge.runtimes.runner import MODEL, Runner, pinned


class ReferenceRunner(Runner):
    def __init__(self, content: bytes, batch_size: int) -> None:
        started = time.perf_counter_ns()
        proto = onnx.load_model_from_string(content)
        self._session = ReferenceEvaluator(proto)
        self.open_ms = (time.perf_counter_ns() - started) / 1e6
        self.size, self.sha256, self.batch_size = len(content), hashlib.sha256(content).hexdigest(), batch_size
        channels, height, width = (size.dim_value for size in proto.graph.input[0].type.tensor_type.shape.dim[1:])
        self.input_shape = (channels, height, width)
        self.classes = proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value

    def describe(self) -> dict[str, Any]:
        return {"name": "reference", "version": onnx.__version__, "provider": "numpy", "threads": 1}

    def _call(self, batch: np.ndarray) -> np.ndarray:
        (logits,) = self._session.run(None, {"image": batch})
        return np.asarray(logits, np.float32)


def open_stage(stage: Stage, *, batch_size: int, threads: int, device: str) -> ReferenceRunner:
    return ReferenceRunner(pinned(stage, MODEL), batch_size)


def _can(facts: MachineFacts) -> Capability:
    return Capability("yes", facts.written("onnx")) if facts.usable("onnx") else Capability("no", "onnx is missing")


DOCTOR = TargetDoctor(_can, _can, module="onnx", remedy=lambda: "pip install onnx")
