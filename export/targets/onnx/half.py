"""A float32 graph in FP16 or BF16: cast behind its input and before its output, everything between in half.

Strongly typed: no runtime is left to choose. Scales of quantizers are of that type too, as QuantizeLinear of opset 19
and 20 has one type for values and scale.
"""

from collections.abc import Mapping

import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from edge.core.errors import CompressError

KINDS = {"fp16": (TensorProto.FLOAT16, torch.float16), "bf16": (TensorProto.BFLOAT16, torch.bfloat16)}
#: Convolutions and pooling take bfloat16 since this opset.
LEAST_OPSET = {"bf16": 22}


def to_half(proto: onnx.ModelProto, kind: str, modules: Mapping[str, str]) -> None:
    """In place. A weight beyond the type's range is refused with its torch module, `modules`: node name → module."""
    graph = proto.graph
    owners = {name: modules.get(node.name, node.name) for node in graph.node for name in node.input}
    for weight in graph.initializer:
        _halve(weight, kind, owners.get(weight.name, weight.name))
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                _halve(attribute.t, kind, modules.get(node.name, node.name))
            elif node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = KINDS[kind][0]
    # float32 image in and float32 logits out, under the names that they have
    entry, result = graph.input[0].name, graph.output[0].name
    inside, before = f"{entry}_{kind}", f"{result}_{kind}"
    for node in graph.node:
        renamed = {entry: inside, result: before}
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [before if name == result else name for name in node.output]
    nodes = [
        helper.make_node("Cast", [entry], [inside], f"{entry}_cast", to=KINDS[kind][0]),
        *graph.node,
        helper.make_node("Cast", [before], [result], f"{result}_cast", to=TensorProto.FLOAT),
    ]
    del graph.node[:]
    graph.node.extend(nodes)


def _halve(entry: onnx.TensorProto, kind: str, owner: str) -> None:
    if entry.data_type != TensorProto.FLOAT:
        return
    number, dtype = KINDS[kind]
    values = torch.from_numpy(numpy_helper.to_array(entry).copy())
    halved = values.to(dtype)
    if bool((halved.isinf() & values.isfinite()).any()):
        raise CompressError(
            f"layer {owner}: holds a weight of {float(values.abs().max()):.3g}, {kind} ends at "
            f"{torch.finfo(dtype).max:.5g}; use --precision {'bf16 or ' if kind == 'fp16' else ''}float32"
        )
    raw = halved.view(torch.int16).numpy().astype("<i2").tobytes()
    entry.CopyFrom(helper.make_tensor(entry.name, number, entry.dims, raw, raw=True))
