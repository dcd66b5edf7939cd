"""The target onnx: one file for ONNX Runtime, any batch size."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from compress.config import ExportConfig
from compress.data.dataset import Dataset
from compress.networks.base import count_parameters
from edge.core import artifact
from edge.core.artifact import Stage, Work
from edge.core.progress import say
from edge.runtimes.runner import MODEL
from export import parity
from export.targets.onnx import execution, graph


def write(work: Work, source: Stage, dataset: Dataset, config: ExportConfig) -> dict[str, Any]:
    """`model.onnx` from a teacher, student or quantized stage, held against the torch model; the manifest's metrics.

    Of an INT8 file the metrics name the layers that ONNX Runtime executes in floating point nevertheless.
    """
    made = graph.emit_graph(source, runtime="onnx", precision=config.precision, opset=config.opset)
    file = work.add_payload(MODEL)
    artifact.write_atomic(file, made.proto.SerializeToString(deterministic=True))
    made = replace(made, proto=onnx.ModelProto())  # from here on the file counts, and a copy less lies in memory
    metrics = {
        "bytes": file.stat().st_size,
        "precision": made.precision,
        "parameters": count_parameters(made.twin),
        **parity.measure_parity(made, file, dataset, config),
    }
    return metrics | _integer(file) if made.precision == "int8" else metrics


def _integer(file: Path) -> dict[str, Any]:
    found = execution.executed_layers(file.read_bytes())
    if found.floating:
        say(f"{len(found.floating)} layers are executed in floating point: {', '.join(found.floating)}")
    return {"integer_layers": len(found.integer), "floating_layers": found.floating}
