"""A graph read by what flows where: its functions inlined, decided branches taken. Nothing here imports torch."""

from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from onnx import helper, numpy_helper

from compress.networks.graph import Node
from compress.networks.graph.sizes import (
    MEASURES,
    MOST_NUMBERS,
    OPERATORS_ON_SIZES,
    UNKNOWN,
    Array,
    computed_sizes,
    is_known,
    measured_sizes,
)

STANDARD = ("", "ai.onnx")
QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
#: Operators that give their first input's values in another type or on a grid.
RETYPES = frozenset({"Identity", "Cast", "CastLike", "Dropout", *QUANTIZERS})
#: Operators that give (some of) their first input's values in other places.
MOVES = frozenset(
    {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Expand", "Tile", "Slice", "Gather", "Split"}
)
#: Operators whose result has the values of their first input: read of constants of any size.
KEEPS = {"Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze"}


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
        self._computed: dict[str, Array | None] = {}
        self._shapes: dict[str, list[int]] | None = None
        self.opset = standard_opset(proto)

    def live(self) -> list[onnx.NodeProto]:
        """The nodes that an output depends on, in their order."""
        wanted, backwards = {entry.name for entry in self.proto.graph.output}, []
        for node in reversed(self.nodes):
            if wanted.intersection(node.output):
                wanted.update(names_read(node))
                backwards.append(node)
        return backwards[::-1]

    def array(self, name: str) -> "Array | None":
        """Values of a constant, or of what is computed from constants and stated sizes; None of all other.

        None too of what lies in another file. Dequantized values may come in another shape.
        """
        try:
            values = self._values(name)
        except RecursionError:  # a cycle, or a chain of thousands of nodes
            return None
        return None if values is None or not is_known(values) else values

    def _values(self, name: str) -> "Array | None":
        """As `array`, with `UNKNOWN` in place of sizes that are not stated."""
        if name in self.stored:
            entry = self.stored[name]
            return None if entry.data_location == onnx.TensorProto.EXTERNAL else numpy_helper.to_array(entry)
        node = self.maker.get(name)
        if node is None:
            return None
        if node.op_type == "DequantizeLinear":
            return self._dequantized(node)
        if node.domain not in STANDARD or node.op_type not in {*MEASURES, *OPERATORS_ON_SIZES}:
            return None
        if name not in self._computed:
            self._computed |= zip(node.output, self._outputs(node), strict=False)
        return self._computed.get(name)

    def _outputs(self, proto: onnx.NodeProto) -> "tuple[Array | None, ...]":
        node = Node(
            proto.name, proto.op_type, tuple(proto.input), tuple(proto.output), attributes_of(proto), self.opset
        )
        nothing = (None,) * len(node.outputs)
        if node.op in MEASURES:
            stated = self.shapes().get(node.inputs[0])
            return nothing if stated is None else (measured_sizes(node, [size or UNKNOWN for size in stated]),)
        inputs = [self._values(entry) if entry else None for entry in node.inputs]
        known = all(value is not None for value, entry in zip(inputs, node.inputs, strict=True) if entry)
        weights = node.op not in KEEPS and any(value is not None and value.size > MOST_NUMBERS for value in inputs)
        if not known or weights:
            return nothing
        try:
            return computed_sizes(node, inputs)
        except Exception:  # Python's and numpy's, of operands that do not fit, and of sizes that are not stated
            return nothing

    def _dequantized(self, node: onnx.NodeProto) -> "Array | None":
        values = self._values(node.input[0])
        scale, zero = (self._values(entry) if entry else np.zeros(1) for entry in (*node.input[1:], "")[:2])
        if values is None or scale is None or zero is None or scale.size > 1:
            return None
        return np.asarray((values.astype(np.float64) - zero.astype(np.float64)) * scale)

    def shapes(self) -> dict[str, list[int]]:
        """Sizes by tensor, 0 for what is not fixed; of what cannot be inferred there is no entry."""
        if self._shapes is None:
            try:
                graph = onnx.shape_inference.infer_shapes(self.proto, data_prop=True).graph
            except Exception:  # it refuses files that runtimes take, and those beyond 2 GB
                graph = self.proto.graph
            self._shapes = {
                entry.name: [size.dim_value for size in entry.type.tensor_type.shape.dim]
                for entry in [*graph.value_info, *graph.input, *graph.output]
                if entry.type.tensor_type.HasField("shape")
            }
        return self._shapes

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


def standard_opset(holder: "onnx.ModelProto | onnx.FunctionProto") -> int:
    """The version of ONNX's own operators in a model or a function; 0 where it imports none."""
    return next((entry.version for entry in holder.opset_import if entry.domain in STANDARD), 0)


def replace_entries(field: Any, entries: Iterable[Any]) -> None:
    """Put others in the place of a repeated field's entries; they may be some of its own."""
    copies = [type(entry).FromString(entry.SerializeToString()) for entry in entries]
    del field[:]
    field.extend(copies)


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
    """The same model without functions of its own, and with each If as its branch whose condition needs no image."""
    inlined = in_order(onnx.inliner.inline_local_functions(_of_one_opset(proto)) if proto.functions else proto)
    if all(node.op_type != "If" for node in inlined.graph.node):
        return inlined
    result = onnx.ModelProto()
    result.CopyFrom(inlined)
    while (place := _decided_branch(result)) is not None:
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
        replace_entries(result.graph.node, nodes)
        result.graph.initializer.extend(body.initializer)
    return result


def in_order(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with each node behind those that it reads, as the format asks and ONNX Runtime does not."""
    maker = {name: place for place, node in enumerate(proto.graph.node) for name in node.output if name}
    reads = {
        place: {maker[name] for name in names_read(node) if name in maker} - {place}
        for place, node in enumerate(proto.graph.node)
    }
    if all(before < place for place, others in reads.items() for before in others):
        return proto
    try:
        order = list(TopologicalSorter(reads).static_order())
    except CycleError:  # the runtime's to refuse
        return proto
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    replace_entries(result.graph.node, [proto.graph.node[place] for place in order])
    return result


def _of_one_opset(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same model; a function of another opset whose operators mean the same in the model's is said to be of that.

    One whose operators changed stays as it is, and is not inlined: ONNX Runtime reads its nodes in the model's opset,
    ONNX in the function's.
    """
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    opset = standard_opset(proto)
    for function in result.functions:
        for entry in function.opset_import:
            if entry.domain in STANDARD and all(_unchanged(node, entry.version, opset) for node in function.node):
                entry.version = opset
    return result


def _unchanged(node: onnx.NodeProto, opset: int, other: int) -> bool:
    """Whether an operator's version is the same in two opsets."""
    if node.domain not in STANDARD:
        return True
    if any(entry.type == onnx.AttributeProto.GRAPH for entry in node.attribute):
        return opset == other
    try:
        schemas = [onnx.defs.get_schema(node.op_type, version) for version in (opset, other)]
    except onnx.defs.SchemaError:
        return False
    return bool(schemas[0].since_version == schemas[1].since_version)


def _decided_branch(proto: onnx.ModelProto) -> "tuple[int, onnx.GraphProto] | None":
    """The first If whose condition no image decides, by its place, and the branch that it takes.

    A constant condition, one of stated sizes, or one that comes out the same for batches of 1, 2 and 5.
    """
    flow, batches = DataFlow(proto), list[DataFlow]()
    for number, node in enumerate(flow.nodes):
        if node.op_type != "If":
            continue
        conditions = [flow.array(node.input[0])]
        if conditions[0] is None:
            batches = batches or [DataFlow(_of_batch(proto, size)) for size in (1, 2, 5)]
            conditions = [each.array(node.input[0]) for each in batches]
        taken = {None if condition is None else bool(condition.reshape(-1)[0]) for condition in conditions}
        if len(taken) == 1 and None not in taken:
            return number, attributes_of(node)["then_branch" if taken.pop() else "else_branch"]
    return None


def _of_batch(proto: onnx.ModelProto, size: int) -> onnx.ModelProto:
    """The same model for so many images: sizes that follow from a free batch alone can be inferred."""
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    del result.graph.value_info[:]
    for entry in result.graph.input:
        sizes = entry.type.tensor_type.shape.dim
        if sizes and not sizes[0].dim_value:
            sizes[0].dim_value = size
    return result


def _renamed(graph: onnx.GraphProto, prefix: str) -> onnx.GraphProto:
    """A branch whose own tensors bear a prefix: two branches may use a name twice."""
    result = onnx.GraphProto()
    result.CopyFrom(graph)
    own = _names_of(graph)
    for node in result.node:
        node.output[:] = [prefix + name if name in own else name for name in node.output]
    for entry in result.initializer:
        entry.name = prefix + entry.name
    _rename_read(result, own, prefix)
    return result


def _rename_read(graph: onnx.GraphProto, own: set[str], prefix: str) -> None:
    """In the branches inside too, which read the tensors around them by name."""
    for node in graph.node:
        node.input[:] = [prefix + name if name in own else name for name in node.input]
        for entry in node.attribute:
            for inner in [entry.g] if entry.type == onnx.AttributeProto.GRAPH else entry.graphs:
                _rename_read(inner, own - _names_of(inner), prefix)
    for result in graph.output:
        result.name = prefix + result.name if result.name in own else result.name


def _names_of(graph: onnx.GraphProto) -> set[str]:
    """The tensors that a graph makes or holds itself."""
    return {name for node in graph.node for name in node.output if name} | {entry.name for entry in graph.initializer}
