"""The made-up target on the workstation: signed activations, integer biases, every site quantized."""

import numpy as np

from compress.config import ExportConfig
from compress.data.dataset import Dataset
from compress.quantization.grids import Int8Dialect
from edge.core.artifact import Stage, Work, write_atomic
from edge.core.targets import Target
from edge.runtimes.runner import MODEL
from export import parity
from export.contract import Emission
from export.targets.onnx.graph import emit_graph
from tests.export.madeup.running import ReferenceRunner

GRID = Int8Dialect(unsigned=False, integer_bias=True, half_scales=False, fuses=False)


def emit(target: Target, work: Work, source: Stage, dataset: Dataset, config: ExportConfig) -> Emission:
    emitted = emit_graph(source, target, precision=config.precision, opset=config.opset)
    content = emitted.proto.SerializeToString(deterministic=True)
    write_atomic(work.add_payload(MODEL), content)

    def answers(images: np.ndarray, batch_size: int) -> np.ndarray:
        return ReferenceRunner(content, batch_size).infer(images)

    images = dataset.part("val")[0][: config.parity_images]
    held = parity.hold_parity(emitted.twin, emitted.precision, answers, images, config)
    metrics = {
        "bytes": len(content),
        "precision": emitted.precision,
        "parameters": sum(value.numel() for value in emitted.twin.parameters()),
        "executed": True,
        "parity": held.as_metrics(),
    }
    return Emission(metrics, MODEL, target.runtime)
