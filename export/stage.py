"""The exported stage: a student or its quantized twin as what one runtime executes, compared with the torch model."""

import importlib
from dataclasses import dataclass
from pathlib import Path

from compress.config import ExportConfig
from compress.folders import lineage, load_data, plan_of
from edge.core import artifact
from edge.core.artifact import Plan, Stage, Work
from export import contract
from export.targets.onnx import adopt

#: Target → the module that writes its files: `write(work, source, dataset, config)` → the manifest's metrics.
WRITERS = {
    "onnx": "export.targets.onnx.emission",
    "tensorrt": "export.targets.tensorrt.emission",
    "tensorrt-rtx": "export.targets.tensorrt.emission",
    "torch-tensorrt": "export.targets.torch_tensorrt.emission",
    "torch-tensorrt-rtx": "export.targets.torch_tensorrt.emission",
}


@dataclass(frozen=True)
class ExportInputs:
    """A teacher's, student's or quantized stage's folder, or an `.onnx` file made elsewhere."""

    model: "Path | str"


def plan(config: ExportConfig, inputs: ExportInputs) -> Plan:
    """What decides the result."""
    if adopt.is_file(inputs.model):
        return adopt.plan(config, inputs.model)
    return plan_of("exported", config, {"model": _read(inputs)})


def run(config: ExportConfig, inputs: ExportInputs, out: "Path | str", *, replace: bool = False) -> Stage:
    """Export a teacher, student or quantized stage, into `out`.

    An `.onnx` file in its place is adopted as it is (`export.targets.onnx.adopt`).
    """
    if adopt.is_file(inputs.model):
        return adopt.run(config, inputs.model, out, replace=replace)
    source = _read(inputs)

    def make(work: Work) -> None:
        dataset = load_data(config.data, source)
        work.metrics = importlib.import_module(WRITERS[config.target]).write(work, source, dataset, config)
        contract.write_contract(work, dataset, config)

    return artifact.build(
        out,
        plan_of("exported", config, {"model": source}),
        make,
        lineage=lineage(config, {"model": source}),
        replace=replace,
    )


def _read(inputs: ExportInputs) -> Stage:
    return artifact.read(inputs.model, ("student", "quantized", "teacher"))
