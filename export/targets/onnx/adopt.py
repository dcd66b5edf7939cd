"""A file that another tool exported becomes an exported stage, held against the dataset it is for.

Its very bytes, where it takes float32 NCHW images in [0, 1] and gives logits (N,K); else its graph with what makes that
of it put in front and behind.
"""

import dataclasses
from pathlib import Path
from typing import Any

import onnx

from compress.config import ExportConfig
from compress.data import load_dataset
from compress.data.dataset import Dataset
from compress.folders import lineage, plan_of
from compress.networks.base import count_stored
from compress.networks.graph.dataflow import DataFlow, flattened
from compress.networks.graph.output_meaning import (
    LOG_PROBABILITIES,
    LOGITS,
    PROBABILITIES,
    UNKNOWN,
    OutputMeaning,
    output_meaning,
)
from edge.core import artifact, targets
from edge.core.artifact import Plan, Stage, Work
from edge.core.errors import CompressError
from edge.core.progress import say
from edge.core.proportions import clopper_pearson
from edge.runtimes.onnxruntime.runner import OnnxRunner
from edge.runtimes.runner import BATCH_SIZE, MODEL, Runner
from edge.validity.logits import artifact_checks, chance_check, distributions
from edge.validity.rules import record_checks, with_known_probabilities
from export import contract
from export.contract import Emission
from export.targets.onnx.adopted_graph import graph_to_ship
from export.targets.onnx.foreign_file import ForeignFile, read_foreign
from export.targets.onnx.input_form import BYTES
from export.targets.onnx.precision import GraphPrecision, precision_of

#: Of the stage's config; the bytes are there already.
DECIDES_NOTHING = ("opset", "precision", "parity_images", "min_agreement")


def plan_adopted(config: ExportConfig, file: "Path | str") -> Plan:
    """What decides the result: the bytes, in the place of a model that they were made from."""
    return _plan(config, read_foreign(Path(file)))


def adopt_file(config: ExportConfig, file: "Path | str", out: "Path | str", *, replace: bool = False) -> Stage:
    """Adopt `file` into `out`: classes and input held against the dataset, accuracy on test images measured."""
    path = Path(file)
    if config.target != "onnx":
        raise CompressError(f"{path}: a file of another tool is adopted for --target onnx, not for {config.target}")
    if config.precision != "auto":
        raise CompressError(f"{path}: its bytes are adopted as they are; leave --precision {config.precision} out")
    for key in ("opset", "batch"):
        if getattr(config, key) != ExportConfig.model_fields[key].get_default(call_default_factory=True):
            raise CompressError(f"{path}: has its own {key}, which adoption keeps; leave --{key} out")
    foreign = read_foreign(path)

    def make(work: Work) -> None:
        dataset = load_dataset(config.data)
        graph = graph_to_ship(config.adopt, foreign, dataset)
        artifact.write_atomic(work.add_payload(MODEL), graph.content)
        proto = onnx.load_model_from_string(graph.content)
        meaning = output_meaning(proto)
        # levels that 8-bit images are put on are no arithmetic of the file's
        precision = precision_of(foreign.proto if graph.form.kind == BYTES else proto)
        with OnnxRunner(graph.content, where=str(path), batch_size=BATCH_SIZE, threads=0) as runner:
            figures = _measured(runner, dataset, path, meaning, precision)
        notes = [
            *graph.notes,
            _said_of_output(meaning, looks_like_probabilities=figures["probabilities"]),
            precision.wording,
            _said_of_ranges(proto),
            _said_of_twin(graph.content, path),
        ]
        metrics = {
            "bytes": len(graph.content),
            "precision": precision.name,
            "output": _meaning(meaning, looks_like_probabilities=figures["probabilities"]),
            "parameters": count_stored(proto.graph),
            "adopted": path.name,
            "original": {"sha256": foreign.sha256, "very bytes": artifact.bytes_sha256(graph.content) == foreign.sha256}
            | ({"beside it": foreign.external} if foreign.external else {}),
            "input": graph.form.options,
            "suspects": graph.suspects,
            "fixed_batch": contract.graph_inputs(proto)[0].type.tensor_type.shape.dim[0].dim_value or None,
            **figures,
            "notes": [note for note in notes if note],
        }
        work.metrics = metrics
        named = dataclasses.replace(dataset, classes=graph.classes.names)
        contract.write_contract(work, named, config, Emission(metrics, MODEL, targets.get(config.target).runtime))

    known = lineage(config, {}) | {"original": path}
    stage = artifact.build(out, _plan(config, foreign), make, lineage=known, replace=replace)
    for line in stage.metrics.get("notes", []):
        say(f"{path.name}: {line}")
    return stage


def _plan(config: ExportConfig, foreign: ForeignFile) -> Plan:
    """Of the file that names the classes its content decides, not where it lies."""
    plan = plan_of("exported", config, {})
    kept = {key: value for key, value in plan.config.items() if key not in DECIDES_NOTHING}
    if config.adopt.labels is not None:
        try:
            kept["adopt"] = {**kept["adopt"], "labels": artifact.file_sha256(Path(config.adopt.labels))}
        except OSError as fault:
            raise CompressError(f"--labels {config.adopt.labels}: cannot be read ({fault.strerror})") from None
    beside = {"beside": foreign.external} if foreign.external else {}
    return dataclasses.replace(plan, config={**kept, "adopted": foreign.sha256, **beside})


def _meaning(meaning: OutputMeaning, *, looks_like_probabilities: bool) -> str:
    """As the graph has it; where that shows no softmax, as what was measured has it."""
    unseen = meaning.kind in (UNKNOWN, LOGITS) and looks_like_probabilities
    return PROBABILITIES if unseen else meaning.wording


def _said_of_output(meaning: OutputMeaning, *, looks_like_probabilities: bool) -> str:
    """What its outputs are where they are no logits, and what attacks with gradients take; "" of logits."""
    if meaning.kind in (PROBABILITIES, LOG_PROBABILITIES):
        function = {"nested": "softmaxes"}.get(str(meaning.function), meaning.function)
        before = f"the values before its {function} ({meaning.before})"
        taken = before if meaning.before else "their logarithm" if meaning.kind == PROBABILITIES else "them"
        return f"its outputs are {meaning.wording}; attacks with gradients ascend on {taken}"
    if looks_like_probabilities:
        return (
            "its outputs look like probabilities, and its graph does not show what makes them so; attacks ascend on "
            "them as they are, which may be too weak: give a file that ends in its logits, or in a softmax"
        )
    if meaning.kind == UNKNOWN:
        return (
            "its graph does not show whether its outputs are logits; attacks with gradients ascend on them as they are"
        )
    return ""


def _said_of_ranges(proto: onnx.ModelProto) -> str:
    """Of quantizers that take their range from all that a call holds; "" where there is none."""
    count = sum(node.op_type.startswith("DynamicQuantize") for node in DataFlow(flattened(proto)).live())
    if not count:
        return ""
    return (
        f"{count} of its quantizers take their range from the whole call (dynamic quantization), so an image's logits "
        f"depend a little on its batch; verify it at the batch that ships (--set batch_size=N)"
    )


def _said_of_twin(content: bytes, path: Path) -> str:
    """Why no gradient passes through it; "" where one does."""
    from compress.networks.graph.onnx_twin import build_twin  # torch enters with it

    try:
        build_twin(content, where=path.name)
    except CompressError as fault:
        return f"{str(fault).removeprefix(f'{path.name}: ')}: only attacks without gradients reach it (black box)"
    return ""


def _measured(
    runner: Runner, dataset: Dataset, path: Path, meaning: OutputMeaning, precision: GraphPrecision
) -> dict[str, Any]:
    """Accuracy on the test images, and the validity checks; those that fire are told."""
    images, labels = dataset.part("test")
    logits = runner.infer(images)
    right = int((logits.argmax(1) == labels).sum())
    low, high = clopper_pearson(right, len(labels))
    chance = chance_check(right, labels, logits.argmax(1))
    checks = [*artifact_checks(runner, images, precision=precision.name), chance]
    if meaning.kind == PROBABILITIES:
        checks = with_known_probabilities(checks)
    return {
        "clean": {"n": len(labels), "count": right, "value": right / len(labels), "interval": [low, high]},
        "probabilities": bool(distributions(logits).all()),
        "chance": chance.value,
        "checks": record_checks(checks, path.name),
    }
