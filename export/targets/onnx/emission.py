"""The target onnx: one file for ONNX Runtime, any batch size."""

from dataclasses import replace

import onnx

from compress.config import ExportConfig
from compress.data.dataset import Dataset
from compress.networks.base import count_parameters
from edge.core import artifact
from edge.core.artifact import Stage, Work
from edge.core.progress import say
from edge.core.targets import Target
from edge.runtimes.runner import MODEL
from export import parity
from export.contract import Emission
from export.targets.onnx import graph, layers


def emit_onnx(target: Target, work: Work, source: Stage, dataset: Dataset, config: ExportConfig) -> Emission:
    """`model.onnx` from a teacher, student or quantized stage, held against the torch model.

    Of an INT8 file the metrics name the layers that ONNX Runtime executes in floating point nevertheless.
    """
    emitted = graph.emit_graph(source, target, precision=config.precision, opset=config.opset)
    file = work.add_payload(MODEL)
    artifact.write_atomic(file, emitted.proto.SerializeToString(deterministic=True))
    emitted = replace(emitted, proto=onnx.ModelProto())  # from here on the file counts, and a copy less lies in memory
    metrics = {
        "bytes": file.stat().st_size,
        "precision": emitted.precision,
        "parameters": count_parameters(emitted.twin),
        **parity.measure_parity(emitted, file, dataset, config),
    }
    if emitted.precision == "int8":
        executed = layers.executed_layers(file.read_bytes())
        if executed.floating:
            say(f"{len(executed.floating)} layers are executed in floating point: {', '.join(executed.floating)}")
        metrics |= {"integer_layers": len(executed.integer), "floating_layers": executed.floating}
    return Emission(metrics, MODEL, target.runtime)
