"""The exported stage: a student or its quantized twin as the file of one runtime, compared with the torch model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from compress import artifact
from compress.artifact import Plan, Stage, Work
from compress.config import ExportConfig
from compress.errors import CheckFailed
from compress.models import Classifier, folder, int8
from compress.models.base import parameters
from compress.stages import lineage, load, load_data, plan_of
from edge.runner import MODEL
from export import adopt, onnx_float, onnx_int8
from export.parity import compare

#: Relative to the largest logit; float kernels differ by summation order only. INT8 is judged by its predictions.
FLOAT_TOLERANCE = 1e-3


def plan(config: ExportConfig, inputs: Mapping[str, Any]) -> Plan:
    """What decides the result."""
    if adopt.is_file(inputs["model"]):
        return adopt.plan(config, inputs["model"])
    return plan_of("exported", config, {"model": _read(inputs)})


def run(config: ExportConfig, inputs: Mapping[str, Any], out: "Path | str", *, replace: bool = False) -> Stage:
    """Export `inputs["model"]`, a student or quantized stage, into `out`: INT8 from a quantized one, else float.

    An `.onnx` file in its place is adopted as it is (`export.adopt`).
    """
    if adopt.is_file(inputs["model"]):
        return adopt.run(config, inputs["model"], out, replace=replace)
    source = _read(inputs)

    def make(work: Work) -> None:
        dataset = load_data(config.data, source)
        model = load(source).cpu()
        path = work.add_payload(MODEL)
        quantized = source.kind == "quantized"
        artifact.write_atomic(path, _emit(model, source, config).SerializeToString(deterministic=True))
        images, _ = dataset.part("val")
        found = compare(
            model,
            path,
            images[: config.parity_images],
            min_agreement=config.min_agreement,
            tolerance=None if quantized else FLOAT_TOLERANCE,
        )
        if not found:
            raise CheckFailed(
                f"{out}: the exported file and the torch model disagree (predictions equal on "
                f"{found.argmax_agreement:.1%} of {found.n} images, logits differ by up to {found.max_abs:.3g} "
                f"of {found.scale:.3g}); nothing was kept"
            )
        work.metrics = {
            "bytes": path.stat().st_size,
            "precision": "int8" if quantized else "float32",
            "parameters": parameters(model),
            "parity": found.as_metrics(),
        }

    return artifact.build(
        out,
        plan_of("exported", config, {"model": source}),
        make,
        lineage=lineage(config, {"model": source}),
        replace=replace,
    )


def _read(inputs: Mapping[str, Any]) -> Stage:
    return artifact.read(inputs["model"], ("student", "quantized", "teacher"))


def _emit(model: Classifier, source: Stage, config: ExportConfig) -> Any:
    """The ONNX graph; for a quantized stage the float graph of its folded weights with Q/DQ pairs put in."""
    architecture = folder.read_architecture(source.path)
    image = torch.zeros(architecture["input"])
    if source.kind != "quantized":
        return onnx_float.emit(model, image, config.opset)[0]
    plain = folder.build(architecture)
    int8.fold(plain)
    plain.load_state_dict(onnx_int8.float_weights(model), strict=True)
    proto, origin = onnx_float.emit(plain, image, config.opset)
    onnx_int8.insert(proto, origin, onnx_int8.Scales.of(model, int8.read_layout(source.path)))
    return proto
