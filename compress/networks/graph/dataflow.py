"""A graph read by what flows where: its functions inlined, constant branches taken. Nothing here imports torch."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from onnx import helper, numpy_helper

STANDARD = ("", "ai.onnx")
QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
#: Operators that give their first input's values in another type or on a grid.
RETYPES = frozenset({"Identity", "Cast", "CastLike", "Dropout", *QUANTIZERS})
#: Operators that give (some of) their first input's values in other places.
MOVES = frozenset(
    {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Expand", "Tile", "Slice", "Gather", "Split"}
)
#: Operators whose result has the values of their first input, where that is a constant.
KEEPS = {"Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "DequantizeLinear"}


class DataFlow:
    """Which node gives a tensor, and which tensors are constants. Names are those of the flattened graph."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self.proto = proto
        self.nodes = list(proto.graph.node)
        self.maker = {name: node for node in self.nodes for name in node.output if name}
        self.stored = {entry.name: entry for entry in proto.graph.initializer}
        for node in self.nodes:
            if node.op_type == "Constant" and (value := constant(node)) is not None:
                self.stored[node.output[0]] = value
        self.opset = next((entry.version for entry in proto.opset_import if entry.domain in STANDARD), 0)

    def live(self) -> list[onnx.NodeProto]:
        """The nodes that an output depends on, in their order."""
        wanted, backwards = {entry.name for entry in self.proto.graph.output}, []
        for node in reversed(self.nodes):
            if wanted.intersection(node.output):
                wanted.update(names_read(node))
                backwards.append(node)
        return backwards[::-1]

    def array(self, name: str) -> "np.ndarray[Any, Any] | None":
        """A constant's values, if need be in another shape; None of what is computed, or lies in another file."""
        if name in self.stored:
            entry = self.stored[name]
            return None if entry.data_location == onnx.TensorProto.EXTERNAL else numpy_helper.to_array(entry)
        node = self.maker.get(name)
        if node is None or node.op_type not in KEEPS:
            return None
        values = self.array(node.input[0])
        if values is None or node.op_type != "DequantizeLinear":
            return values
        scale, zero = (self.array(entry) if entry else np.zeros(1) for entry in (*node.input[1:], "")[:2])
        if scale is None or zero is None or scale.size > 1:
            return None
        return np.asarray((values.astype(np.float64) - zero.astype(np.float64)) * scale)

    def scalar(self, name: str) -> "float | None":
        """The value of a constant that holds but one."""
        values = self.array(name)
        return float(values.reshape(-1)[0]) if values is not None and values.size == 1 else None

    def through(self, name: str) -> str:
        """The tensor whose values `name` holds, before they were cast, rounded to a grid or moved."""
        return self.moved(name)[0]

    def moved(self, name: str) -> "tuple[str, tuple[tuple[onnx.NodeProto, int], ...]]":
        """That tensor, and the nodes that put its values in other places since, in order, with the output's place."""
        moves: tuple[tuple[onnx.NodeProto, int], ...] = ()
        while (node := self.maker.get(name)) is not None and node.op_type in RETYPES | MOVES and node.input:
            moves = ((node, list(node.output).index(name)), *moves) if node.op_type in MOVES else moves
            name = node.input[0]
        return name, moves


def constant(node: onnx.NodeProto) -> "onnx.TensorProto | None":
    """What a Constant node holds; None of strings and sparse tensors."""
    if len(node.attribute) != 1:
        return None
    entry = node.attribute[0]
    if entry.name == "value":
        return entry.t
    kind = {"value_int": np.int64, "value_ints": np.int64, "value_float": np.float32, "value_floats": np.float32}
    if entry.name not in kind:
        return None
    return numpy_helper.from_array(np.array(helper.get_attribute_value(entry), kind[entry.name]), node.output[0])


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """By name; of functions' attributes that are not given nothing."""
    return {entry.name: helper.get_attribute_value(entry) for entry in node.attribute if not entry.ref_attr_name}


def names_read(node: onnx.NodeProto) -> Iterator[str]:
    """The tensors that a node reads, those its branches and bodies read included."""
    yield from (name for name in node.input if name)
    for entry in node.attribute:
        for graph in [entry.g] if entry.type == onnx.AttributeProto.GRAPH else entry.graphs:
            for inner in graph.node:
                yield from names_read(inner)
            yield from (result.name for result in graph.output)


def flattened(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same model without functions of its own, and with each If of a constant condition as its branch."""
    inlined = onnx.inliner.inline_local_functions(proto) if proto.functions else proto
    if all(node.op_type != "If" for node in inlined.graph.node):
        return inlined
    result = onnx.ModelProto()
    result.CopyFrom(inlined)
    while (place := _constant_branch(DataFlow(result))) is not None:
        number, branch = place
        node = result.graph.node[number]
        body = _renamed(branch, f"{node.output[0]}/")
        ends = zip(body.output, node.output, strict=True)
        nodes = [
            *result.graph.node[:number],
            *body.node,
            *(helper.make_node("Identity", [inner.name], [outer]) for inner, outer in ends if outer),
            *result.graph.node[number + 1 :],
        ]
        nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del result.graph.node[:]
        result.graph.node.extend(nodes)
        result.graph.initializer.extend(body.initializer)
    return result


def _constant_branch(flow: DataFlow) -> "tuple[int, onnx.GraphProto] | None":
    """The first If of a constant condition and no further bodies inside, by its place, and the branch that it takes."""
    for number, node in enumerate(flow.nodes):
        condition = flow.array(node.input[0]) if node.op_type == "If" else None
        if condition is None:
            continue
        branch = attributes_of(node)["then_branch" if condition.reshape(-1)[0] else "else_branch"]
        if all(entry.type != onnx.AttributeProto.GRAPH for inner in branch.node for entry in inner.attribute):
            return number, branch
    return None


def _renamed(graph: onnx.GraphProto, prefix: str) -> onnx.GraphProto:
    """A branch whose own tensors bear a prefix: two branches may use a name twice."""
    result = onnx.GraphProto()
    result.CopyFrom(graph)
    own = {name for node in graph.node for name in node.output if name} | {entry.name for entry in graph.initializer}
    for node in result.node:
        node.input[:] = [prefix + name if name in own else name for name in node.input]
        node.output[:] = [prefix + name if name in own else name for name in node.output]
    for entry in [*result.initializer, *result.output]:
        entry.name = prefix + entry.name if entry.name in own else entry.name
    return result
