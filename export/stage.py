"""The exported stage: a student or its quantized twin as what one runtime executes, compared with the torch model."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.config import ExportConfig
from compress.folders import lineage, load_data, plan_of
from compress.networks import is_graph_file
from edge.core import artifact, targets
from edge.core.artifact import Plan, Stage, Work
from edge.core.errors import CompressError
from edge.core.targets import Target

if TYPE_CHECKING:
    from compress.data.dataset import Dataset
    from export.contract import Emission

CHECKED = 256  # validation images, at most, of the validity checks


@dataclass(frozen=True)
class ExportInputs:
    """A teacher's, student's or quantized stage's folder, or an `.onnx` file made elsewhere."""

    model: "Path | str"


def plan(config: ExportConfig, inputs: ExportInputs) -> Plan:
    """What decides the result."""
    if is_graph_file(inputs.model):
        from export.targets.onnx import adopt

        return adopt.plan_adopted(config, inputs.model)
    return plan_of("exported", config, {"model": _read(inputs)})


def run(config: ExportConfig, inputs: ExportInputs, out: "Path | str", *, replace: bool = False) -> Stage:
    """Export a teacher, student or quantized stage, into `out`.

    An `.onnx` file in its place is adopted as it is (`export.targets.onnx.adopt`).
    """
    if is_graph_file(inputs.model):
        from export.targets.onnx import adopt

        return adopt.adopt_file(config, inputs.model, out, replace=replace)
    source = _read(inputs)
    if config.adopt != type(config.adopt)():
        raise CompressError(f"{source.path}: adopt is of ONNX files of other tools, this is a stage; leave it out")
    target = targets.get(config.target)
    emit = targets.emitter_of(target)

    def make(work: Work) -> None:
        from export import contract

        dataset = load_data(config.data, source)
        emission = emit(target, work, source, dataset, config)
        contract.check_emission(target, work, emission)
        work.metrics = emission.metrics | _checked(work, target, emission, dataset)
        contract.write_contract(work, dataset, config, emission)

    return artifact.build(
        out,
        plan_of("exported", config, {"model": source}),
        make,
        lineage=lineage(config, {"model": source}),
        replace=replace,
    )


def _checked(work: Work, target: Target, emission: "Emission", dataset: "Dataset") -> dict[str, Any]:
    """The validity checks of a file that this machine executes as it is; of any other `verify` asks them."""
    if not target.graph_is_executed or not emission.metrics.get("executed"):
        return {}
    from edge import open_runner
    from edge.validity.logits import artifact_checks, chance_check, sampled
    from edge.validity.rules import record_checks

    images, labels = dataset.part("val")
    chosen = sampled(len(labels), CHECKED)
    images, labels = images[chosen], labels[chosen]
    with open_runner(work.file(emission.file)) as runner:
        checks = artifact_checks(runner, images, precision=emission.metrics["precision"])
        predictions = runner.infer(images).argmax(1)
    chance = chance_check(int((predictions == labels).sum()), labels, predictions)
    return {"chance": chance.value, "checks": record_checks([*checks, chance], emission.file)}


def _read(inputs: ExportInputs) -> Stage:
    return artifact.read(inputs.model, ("student", "quantized", "teacher"))
