"""A torch classifier as a float ONNX graph, with the module that each node came from.

Where ONNX cannot express a layer, one line says which and why.
"""

import ast
import re

import onnx
import torch

from compress.networks.base import Classifier
from compress.networks.tracing import module_path, quiet, trace_program
from edge.core.errors import CompressError, first_line

INPUT, OUTPUT, BATCH = "image", "logits", "batch"


def emit_float32(model: Classifier, image: torch.Tensor, opset: int) -> tuple[onnx.ModelProto, dict[str, str]]:
    """The graph of `model` with a free batch dimension, and node name → torch module name.

    `image` (C,H,W) gives the input's shape. Input `image` float32 (batch,C,H,W) in [0, 1], output `logits`
    (batch,K). What the exporter notes of the source code is removed, so that equal weights give equal bytes.
    """
    program = trace_program(model.cpu().eval(), torch.zeros(2, *image.shape))
    with quiet():
        try:
            exported = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=opset,
                input_names=[INPUT],
                output_names=[OUTPUT],
                optimize=True,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as fault:
            raise CompressError(unsupported_line(program, fault)) from None
    assert exported is not None
    proto = exported.model_proto
    for value in (*proto.graph.input, *proto.graph.output):  # the exporter numbers it
        value.type.tensor_type.shape.dim[0].dim_param = BATCH
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


def unsupported_line(program: torch.export.ExportedProgram, fault: BaseException) -> str:
    """What made the export of a network fail with `fault`: the operator and the module that runs it, or the reason."""
    while fault.__cause__ is not None:
        fault = fault.__cause__
    operator = re.search(r"No ONNX function found for <OpOverload\(op='([^']+)'", str(fault))
    if operator is None:
        return f"ONNX cannot express it ({first_line(fault, 160)}); put operators that ONNX knows in its place"
    # the innermost module that calls the operator, which may go by a longer name before it is decomposed
    plain = operator[1].rpartition(".")[2]
    users = (node for node in program.run_decompositions().graph.nodes if plain in str(node.target))
    where = next((module_path(node) for node in users), "")
    layer = f"layer {where}: " if where else ""
    return f"{layer}{operator[1]} has no counterpart in ONNX; put operators that ONNX knows in its place"
