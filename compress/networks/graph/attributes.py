"""Which attributes, inputs and outputs of its nodes the twin honours; all that it does not honour is refused by name.

What an operator has in an opset, and what an attribute is where it is left out, is read from ONNX's own schemas. Of an
operator of ONNX Runtime's (`com.microsoft.…`) every attribute that is not honoured is refused.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import onnx
from onnx import helper

from compress.networks.graph import Node
from compress.networks.graph.operators import OPERATORS

#: The opsets whose operators were compared with ONNX Runtime's; before 7, others broadcast and normalize otherwise.
OLDEST, NEWEST = 7, 26
#: What no operator's function computes: constants, and rounding to levels, which is a module (`rounding`).
ELSEWHERE = {
    "Constant": "value value_int value_ints value_float value_floats",
    "QuantizeLinear": "axis output_dtype saturate",  # it saturates float8 alone, which is refused
}


class UnreadPart(Exception):
    """What of a node the twin does not honour, in words."""


def refuse_unread(nodes: Sequence[Node], result: str) -> None:
    """UnreadPart where a node has an attribute, an input or an output in use that is not honoured."""
    used = {name for node in nodes for name in node.inputs} | {result}
    for node in nodes:
        if not OLDEST <= node.opset <= NEWEST:
            raise UnreadPart(f"opset {node.opset} is not known, {OLDEST} to {NEWEST} are")
        for part in _unread(node, used):
            raise UnreadPart(f"{called(node)}: {part}")


def called(node: Node) -> str:
    """An operator and its node, for messages."""
    return f"operator {node.op} {node.name!r}" if node.name else f"operator {node.op}"


def _unread(node: Node, used: "set[str]") -> Iterator[str]:
    operator = OPERATORS.get(node.op)
    honoured = {*(ELSEWHERE[node.op] if operator is None else f"{operator.reads} {operator.ignores}").split()}
    schema = None if "." in node.op else _schema(node)
    for name, value in node.attributes.items():
        if schema is not None and name not in schema.attributes:
            yield f"attribute {name} = {_shown(value)} is none of {node.op}-{schema.since_version}"
        elif name not in honoured and (schema is None or value != _default(schema.attributes[name])):
            yield f"attribute {name} = {_shown(value)} is not supported"
    if schema is not None and len(node.inputs) > schema.max_input:
        yield f"{len(node.inputs)} inputs, {node.op}-{schema.since_version} has {schema.max_input}"
    if operator is None or not operator.all_outputs:
        for place, name in enumerate(node.outputs[1:], 1):
            if name in used and name:
                described = place if schema is None else schema.outputs[min(place, len(schema.outputs) - 1)].name
                yield f"output {described} is not supported"


def _schema(node: Node) -> onnx.defs.OpSchema:
    """The operator's, as ONNX has it in this opset; that of its first where ONNX Runtime had it before ONNX did."""
    opset = node.opset if onnx.defs.has(node.op, node.opset) else NEWEST
    return onnx.defs.get_schema(node.op, opset)


def _default(attribute: "onnx.defs.OpSchema.Attribute") -> Any:
    value = attribute.default_value
    return helper.get_attribute_value(value) if value.type else None


def _shown(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)[:60]
