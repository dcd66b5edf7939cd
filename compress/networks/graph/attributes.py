"""Which attributes, inputs and outputs of its nodes the twin honours; all that it does not honour is refused by name.

What an operator has in an opset, and what an attribute is where it is left out, is read from ONNX's own schemas.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import onnx
from onnx import helper

from compress.networks.graph import Node

#: The opsets whose operators were compared with ONNX Runtime's; before 7, others broadcast and normalize otherwise.
OLDEST, NEWEST = 7, 26
#: Operator → the attributes that are read. An operator that is not listed has none that is.
READ = {
    "AveragePool": "auto_pad ceil_mode count_include_pad dilations kernel_shape pads strides",
    "BatchNormalization": "epsilon training_mode",
    "Cast": "to",
    "Celu": "alpha",
    "Clip": "min max",
    "Concat": "axis",
    "Constant": "value value_int value_ints value_float value_floats",
    "ConstantOfShape": "value",
    "Conv": "auto_pad dilations group kernel_shape pads strides",
    "DequantizeLinear": "axis",
    "Elu": "alpha",
    "Flatten": "axis",
    "Gather": "axis",
    "Gelu": "approximate",
    "Gemm": "alpha beta transA transB",
    "Hardmax": "axis",
    "HardSigmoid": "alpha beta",
    "InstanceNormalization": "epsilon",
    "LayerNormalization": "axis epsilon",
    "LeakyRelu": "alpha",
    "LogSoftmax": "axis",
    "MaxPool": "auto_pad ceil_mode dilations kernel_shape pads strides",
    "Pad": "mode pads value",
    "QuantizeLinear": "axis output_dtype",
    "ReduceL1": "axes keepdims",
    "ReduceL2": "axes keepdims",
    "ReduceLogSumExp": "axes keepdims",
    "ReduceMax": "axes keepdims noop_with_empty_axes",
    "ReduceMean": "axes keepdims noop_with_empty_axes",
    "ReduceMin": "axes keepdims noop_with_empty_axes",
    "ReduceSum": "axes keepdims noop_with_empty_axes",
    "Reshape": "allowzero",
    "Selu": "alpha gamma",
    "Shape": "start end",
    "Slice": "axes ends starts",
    "Softmax": "axis",
    "Split": "axis num_outputs split",
    "Squeeze": "axes",
    "Swish": "alpha",
    "ThresholdedRelu": "alpha",
    "Transpose": "perm",
    "Unsqueeze": "axes",
}
#: Attributes that change nothing of what the twin computes: of training, of an output that it refuses, of float8.
MEANINGLESS = {
    "BatchNormalization": "momentum",
    "Cast": "saturate round_mode",
    "Dropout": "ratio seed",
    "MaxPool": "storage_order",
    "QuantizeLinear": "saturate",
}
#: Operators all of whose outputs are computed; of every other the first is.
ALL_OUTPUTS = ("Split",)


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
    schema = onnx.defs.get_schema(node.op, node.opset)
    honoured = {*READ.get(node.op, "").split(), *MEANINGLESS.get(node.op, "").split()}
    for name, value in node.attributes.items():
        if name not in schema.attributes:
            yield f"attribute {name} = {_shown(value)} is none of {node.op}-{schema.since_version}"
        elif name not in honoured and value != _default(schema.attributes[name]):
            yield f"attribute {name} = {_shown(value)} is not supported"
    if len(node.inputs) > schema.max_input:
        yield f"{len(node.inputs)} inputs, {node.op}-{schema.since_version} has {schema.max_input}"
    if node.op not in ALL_OUTPUTS:
        for name, described in zip(node.outputs[1:], schema.outputs[1:], strict=False):
            if name in used and name:
                yield f"output {described.name} is not supported"


def _default(attribute: "onnx.defs.OpSchema.Attribute") -> Any:
    value = attribute.default_value
    return helper.get_attribute_value(value) if value.type else None


def _shown(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)[:60]
