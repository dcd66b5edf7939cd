"""The ONNX graph that every target starts from, and the torch model that it must agree with."""

from collections.abc import Mapping
from dataclasses import dataclass

import onnx
import torch

from compress.folders import load
from compress.networks import network_files
from compress.networks.base import Classifier
from compress.networks.foreign_network import refuse_scripted
from compress.quantization import grids, int8
from compress.quantization.graph_network import GraphNetwork
from edge.core.artifact import Stage
from edge.core.errors import CompressError
from edge.core.progress import say
from edge.core.targets import Target
from export.targets.onnx import float32, half, qdq


@dataclass(frozen=True)
class EmittedGraph:
    """`twin` is what `proto` must compute: float32 in and out whatever the graph's arithmetic is.

    `target` is what it was emitted for, in its dialect. `precision`: int8, float32, fp16 or bf16; `floats`: what it
    computes in where it does not in integers. `modules`: node name → the torch module that it came from.
    """

    proto: onnx.ModelProto
    twin: Classifier
    target: Target
    precision: str
    floats: str
    modules: Mapping[str, str]


def emit_graph(source: Stage, target: Target, *, precision: str, opset: int) -> EmittedGraph:
    """The graph of a teacher, student or quantized stage, laid out for `target`.

    Input `image` float32 (batch,C,H,W) in [0, 1], output `logits` float32 (batch,K), any batch. BF16 needs opset 22
    and has it whatever is asked for.
    """
    chosen = chosen_precision(source, target, precision)
    architecture = network_files.read_architecture(source.path)
    if architecture["model"] == network_files.ONNX:
        raise CompressError(
            f"{source.path}: is an ONNX file already; compress export {source.path}/model.onnx adopts it"
        )
    image = torch.zeros(architecture["input"])
    if chosen == "int8":
        assert target.dialect is not None
        dialect = grids.dialect(target.dialect)
        twin = load(source, runtime=target.dialect).cpu()
        assert isinstance(twin, GraphNetwork)
        proto, modules = float32.emit_float32(int8.float_copy(twin), image, opset)
        stored = int8.read_layout(source.path)
        # fine-tuning adapts weights to one runtime's grid; on another's they may be worth less
        if source.config.get("mode") == "qat" and stored["runtime"] != target.dialect:
            say(
                f"{source.path}: fine-tuned on the INT8 grid of {stored['runtime']}, exported on that of "
                f"{target.dialect}; for one fine-tuned on it: compress quantize … --set runtime={target.dialect}"
            )
        qdq.insert_pairs(proto, modules, qdq.Scales.of(twin, dialect.layout(stored), dialect))
    else:
        twin = load(source).cpu()
        refuse_scripted(twin, source.path)
        proto, modules = float32.emit_float32(twin, image, max(opset, half.LEAST_OPSET.get(chosen, opset)))
    floats = target.rest if chosen == "int8" else chosen
    if floats in half.KINDS:
        half.to_half(proto, floats, modules)
    return EmittedGraph(proto, twin, target, chosen, floats, modules)


def chosen_precision(source: Stage, target: Target, precision: str) -> str:
    """The precision that `precision`, one of `targets.PRECISIONS`, means for this stage; what it lacks is refused."""
    quantized = source.kind == "quantized"
    if quantized and precision in ("auto", "int8") and target.dialect is None:
        raise CompressError(
            f"{source.path}: is quantized, and the target {target.name} has no INT8; export "
            f"{source.input_path('student')}, which it was made from, or choose another --target"
        )
    if precision == "auto":
        return "int8" if quantized else target.auto
    if precision not in (*target.precisions, "int8"):
        raise CompressError(
            f"{source.path}: the target {target.name} has no {precision}; give --precision "
            f"{' or '.join(target.precisions)}"
        )
    if quantized and precision != "int8":
        raise CompressError(
            f"{source.path}: is quantized, {precision} was asked for; export {source.input_path('student')}, which it "
            f"was made from, or leave --precision out"
        )
    if not quantized and precision == "int8":
        raise CompressError(
            f"{source.path}: is a {source.kind} without INT8 ranges; first: compress quantize {source.path} --out DIR"
        )
    return precision
