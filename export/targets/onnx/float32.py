"""A torch classifier as a float ONNX graph, with the module that each node came from.

Where ONNX cannot express a layer, one line says which and why.
"""

import ast
import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator
from typing import Any

import onnx
import torch
from torch import nn

from compress.networks.base import Classifier
from edge.core.errors import CompressError, first_line

INPUT, OUTPUT = "image", "logits"


def emit_float32(model: Classifier, image: torch.Tensor, opset: int) -> tuple[onnx.ModelProto, dict[str, str]]:
    """The graph of `model` with a free batch dimension, and node name → torch module name.

    `image` (C,H,W) gives the input's shape. Input `image` float32 (batch,C,H,W) in [0, 1], output `logits`
    (batch,K). What the exporter notes of the source code is removed, so that equal weights give equal bytes.
    """
    model = model.cpu().eval()
    example = torch.zeros(2, *image.shape)
    with _quiet():
        try:
            program = torch.onnx.export(
                model,
                (example,),
                dynamo=True,
                opset_version=opset,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=65536)},),
                optimize=True,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as fault:
            raise CompressError(unsupported_line(model, example, fault)) from None
    assert program is not None
    proto = program.model_proto
    origin = {}
    for node in proto.graph.node:
        scopes = [entry.value for entry in node.metadata_props if entry.key == "pkg.torch.onnx.name_scopes"]
        if scopes:
            origin[node.name] = str(ast.literal_eval(scopes[0])[-2])  # the innermost module whose forward made it
    _name_weights(proto.graph, origin)
    _strip(proto)
    return proto, origin


def _name_weights(graph: onnx.GraphProto, origin: dict[str, str]) -> None:
    """The turned weights of a linear layer over tokens, which the exporter numbers, bear their module's name."""
    numbered = {entry.name: entry for entry in graph.initializer if "." not in entry.name}
    named: dict[str, str] = {}
    for node in graph.node:
        entry = numbered.get(node.input[1]) if node.op_type == "MatMul" and len(node.input) > 1 else None
        if entry is not None and origin.get(node.name) and entry.name not in named:
            named[entry.name] = f"{origin[node.name]}.weight_turned"
    for node in graph.node:
        node.input[:] = [named.get(name, name) for name in node.input]
    for old, new in named.items():
        numbered[old].name = new


def _strip(proto: onnx.ModelProto) -> None:
    proto.producer_name, proto.producer_version, proto.doc_string = "robust-compress", "", ""
    del proto.metadata_props[:]
    graph = proto.graph
    graph.name = "classifier"
    del graph.metadata_props[:], graph.value_info[:]
    for part in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        part.doc_string = ""
        del part.metadata_props[:]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints and logs, of operators of packages that are not installed and the programs that it traces."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(level)


def unsupported_line(model: nn.Module, example: torch.Tensor, fault: BaseException) -> str:
    """What made the export of `model` fail with `fault`: the operator or the reason, and the torch module at fault."""
    cause = fault
    while cause.__cause__ is not None:
        cause = cause.__cause__
    reason = str(cause)
    operator = re.search(r"No ONNX function found for <OpOverload\(op='([^']+)'", reason)
    where, program = _traced(model, example)
    if operator is not None and program is not None:
        # the innermost module that calls the operator, which may go by a longer name before it is decomposed
        plain = operator[1].rpartition(".")[2]
        users = (node for node in program.graph.nodes if plain in str(node.target))
        where = next((str(list(node.meta["nn_module_stack"].values())[-1][0]) for node in users), "")
    layer = f"layer {where}: " if where else ""
    if operator is None:
        said = first_line(cause, 160)
        return f"{layer}ONNX cannot express it ({said}); what it computes must not depend on values, change it"
    return f"{layer}{operator[1]} has no counterpart in ONNX; put operators that ONNX knows in its place"


def _traced(model: nn.Module, example: torch.Tensor) -> "tuple[str, Any]":
    """The module whose forward was not traced to its end, or the program of all of them."""
    names = {module: name for name, module in model.named_modules()}
    running: list[str] = []

    def enter(module: nn.Module, args: Any) -> None:
        running.append(names[module])

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        running.pop()

    handles = [module.register_forward_pre_hook(enter) for module in names]
    handles += [module.register_forward_hook(leave) for module in names]
    try:
        program = torch.export.export(model, (example,)).run_decompositions()
    except Exception:  # what failed before fails again, of whatever type it is
        return running[-1] if running else "", None
    finally:
        for handle in handles:
            handle.remove()
    return "", program
