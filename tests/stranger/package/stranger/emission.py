"""Write the files of a stage for the target `reference`."""

import numpy as np
from stranger_device.runner import ReferenceRunner

from compress.config import ExportConfig
from compress.data.dataset import Dataset
from compress.networks.base import count_parameters
from edge.core import artifact
from edge.core.artifact import Stage, Work
from edge.core.targets import Target
from edge.runtimes.runner import MODEL
from export import parity
from export.contract import Emission
from export.targets.onnx.graph import emit_graph


def emit_reference(target: Target, work: Work, source: Stage, dataset: Dataset, config: ExportConfig) -> Emission:
    """`model.onnx` in this target's dialect, held against its twin by the runner that will execute it."""
    emitted = emit_graph(source, target, precision=config.precision, opset=config.opset)
    content = emitted.proto.SerializeToString(deterministic=True)
    artifact.write_atomic(work.add_payload(MODEL), content)

    def answers(images: np.ndarray, batch_size: int) -> np.ndarray:
        return ReferenceRunner(content, where=MODEL, batch_size=batch_size).infer(images)

    images, _ = dataset.part("val")
    same = parity.hold_parity(emitted.twin, emitted.precision, answers, images[: config.parity_images], config)
    metrics = {
        "bytes": len(content),
        "precision": emitted.precision,
        "parameters": count_parameters(emitted.twin),
        "executed": True,
        "parity": same.as_metrics(),
    }
    return Emission(metrics, MODEL, target.runtime)
