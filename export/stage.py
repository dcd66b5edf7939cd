"""The exported stage: a student or its quantized twin as what one runtime executes, compared with the torch model."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compress.config import ExportConfig
from compress.folders import lineage, load_data, plan_of
from edge.core import artifact
from edge.core.artifact import Plan, Stage, Work
from export import adopt, contract

#: Target → the module that writes its files: `write(work, source, dataset, config)` → the manifest's metrics.
WRITERS = {
    "onnx": "export.targets.onnx.onnx_target",
    "tensorrt": "export.targets.tensorrt.engine_target",
    "tensorrt-rtx": "export.targets.tensorrt.engine_target",
    "torch-tensorrt": "export.targets.torch_tensorrt.program_target",
    "torch-tensorrt-rtx": "export.targets.torch_tensorrt.program_target",
}


def plan(config: ExportConfig, inputs: Mapping[str, Any]) -> Plan:
    """What decides the result."""
    if adopt.is_file(inputs["model"]):
        return adopt.plan(config, inputs["model"])
    return plan_of("exported", config, {"model": _read(inputs)})


def run(config: ExportConfig, inputs: Mapping[str, Any], out: "Path | str", *, replace: bool = False) -> Stage:
    """Export `inputs["model"]`, a teacher, student or quantized stage, into `out`.

    An `.onnx` file in its place is adopted as it is (`export.adopt`).
    """
    if adopt.is_file(inputs["model"]):
        return adopt.run(config, inputs["model"], out, replace=replace)
    source = _read(inputs)

    def make(work: Work) -> None:
        dataset = load_data(config.data, source)
        work.metrics = importlib.import_module(WRITERS[config.target]).write(work, source, dataset, config)
        contract.write(work, dataset, config)

    return artifact.build(
        out,
        plan_of("exported", config, {"model": source}),
        make,
        lineage=lineage(config, {"model": source}),
        replace=replace,
    )


def _read(inputs: Mapping[str, Any]) -> Stage:
    return artifact.read(inputs["model"], ("student", "quantized", "teacher"))
