"""A file that another tool exported becomes an exported stage: its very bytes, held against the dataset it is for."""

import functools
from dataclasses import replace
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
from edge import open_runner
from edge.core import artifact, targets
from edge.core.artifact import Plan, Stage, Work
from edge.core.errors import CompressError
from edge.core.progress import say
from edge.core.proportions import clopper_pearson
from edge.runtimes.runner import MODEL, Runner
from edge.validity.logits import artifact_checks, chance_check, distributions
from edge.validity.rules import record_checks, with_known_probabilities
from export import contract
from export.contract import Emission
from export.targets.onnx.precision import GraphPrecision, precision_of

#: Of the stage's config; the bytes are there already.
DECIDES_NOTHING = ("opset", "precision", "parity_images", "min_agreement")


def is_onnx_file(model: "Path | str | Stage") -> bool:
    """Whether it is an ONNX file and no stage."""
    return not isinstance(model, Stage) and Path(model).suffix == ".onnx" and not Path(model).is_dir()


def plan_adopted(config: ExportConfig, file: "Path | str") -> Plan:
    """What decides the result: the bytes, in the place of a model that they were made from."""
    return _plan(config, artifact.bytes_sha256(_content(Path(file))))


def adopt_file(config: ExportConfig, file: "Path | str", out: "Path | str", *, replace: bool = False) -> Stage:
    """Adopt `file` into `out`: classes and input shape held against the dataset, accuracy on test images measured."""
    path = Path(file)
    if config.target != "onnx":
        raise CompressError(f"{path}: a file of another tool is adopted for --target onnx, not for {config.target}")
    if config.precision != "auto":
        raise CompressError(f"{path}: its bytes are adopted as they are; leave --precision {config.precision} out")
    content = _content(path)

    @functools.cache
    def read() -> tuple[onnx.ModelProto, OutputMeaning, GraphPrecision]:
        """Not before the runtime opened the file: it knows best what is wrong with one that is no graph."""
        proto = onnx.load_model_from_string(content)
        return proto, output_meaning(proto), precision_of(proto)

    def make(work: Work) -> None:
        with open_runner(path) as runner:
            dataset = load_dataset(config.data)
            proto, meaning, precision = read()
            figures = _measured(runner, dataset, path, meaning, precision)
        artifact.write_atomic(work.add_payload(MODEL), content)
        metrics = {
            "bytes": len(content),
            "precision": precision.name,
            "output": _meaning(meaning, looks_like_probabilities=figures["probabilities"]),
            "parameters": count_stored(proto.graph),
            "adopted": path.name,
            "fixed_batch": contract.graph_inputs(proto)[0].type.tensor_type.shape.dim[0].dim_value or None,
            **figures,
        }
        work.metrics = metrics
        contract.write_contract(work, dataset, config, Emission(metrics, MODEL, targets.get(config.target).runtime))

    stage = artifact.build(
        out, _plan(config, artifact.bytes_sha256(content)), make, lineage=lineage(config, {}), replace=replace
    )
    proto, meaning, precision = read()
    for line in (
        _said_of_output(meaning, looks_like_probabilities=stage.metrics["probabilities"]),
        precision.wording,
        _said_of_ranges(proto),
    ):
        if line:
            say(f"{path.name}: {line}")
    return stage


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


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as fault:
        raise CompressError(f"{path}: cannot be read ({fault.strerror}); give an .onnx file") from None


def _plan(config: ExportConfig, sha256: str) -> Plan:
    plan = plan_of("exported", config, {})
    kept = {key: value for key, value in plan.config.items() if key not in DECIDES_NOTHING}
    return replace(plan, config={**kept, "adopted": sha256})


def _measured(
    runner: Runner, dataset: Dataset, path: Path, meaning: OutputMeaning, precision: GraphPrecision
) -> dict[str, Any]:
    """Accuracy on the test images, which the file must fit, and the validity checks; those that fire are told.

    Preprocessing that is done elsewhere shows here as chance level.
    """
    shape, classes = dataset.images.shape[1:], len(dataset.classes)
    if runner.input_shape != shape:
        raise CompressError(
            f"{path}: takes images {runner.input_shape}, {dataset.name} has {shape}; give the --data it is for"
        )
    if runner.classes != classes:
        raise CompressError(
            f"{path}: tells {runner.classes} classes apart, {dataset.name} has {classes}; give the --data it is for"
        )
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
