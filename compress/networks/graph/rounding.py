"""What a graph rounds, in torch: integer levels and half precision, carried in float32, the gradient straight through.

float32 holds all levels of 8 bits exactly. The gradient of a value that the integer range clips is zero, as its level
does not move with it. Half-precision tensors are rounded to their type behind each operator; hardware computes so too:
products are summed in float32 and the sum is rounded. Gradients pass in float32, as in half precision the small ones
of a confident network would vanish.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from onnx import TensorProto
from torch import Tensor, nn

from compress.networks.graph import Node

#: ONNX's numbers of element types: of integer levels, and of half precision
LEVELS = {2: torch.uint8, 3: torch.int8, 4: torch.uint16, 5: torch.int16}
HALF = {10: torch.float16, 16: torch.bfloat16}
#: Operators whose results are levels, sizes, places or conditions, whatever they read.
NOT_OF_THEIR_INPUTS = frozenset(
    {"QuantizeLinear", "Shape", "Size", "NonZero", "ArgMax", "ArgMin", "Equal", "IsInf", "IsNaN"}
    | {"Greater", "GreaterOrEqual", "Less", "LessOrEqual"}
)


class QuantizeLinear(nn.Module):
    """QuantizeLinear with constant scale and zero point, per tensor or along `axis`."""

    scale: Tensor
    zero: Tensor

    def __init__(self, node: Node, scale: Tensor, zero: "Tensor | None") -> None:
        super().__init__()
        levels = torch.iinfo(_level_type(node, zero))
        self.axis, self.low, self.high = node.whole("axis", 1), levels.min, levels.max
        self.register_buffer("scale", scale)
        self.register_buffer("zero", torch.zeros_like(scale) if zero is None else zero.to(scale.dtype))

    def forward(self, x: Tensor) -> Tensor:
        """x → levels, of x's shape; ties go to the even level before the zero point is added, as ONNX has it."""
        scale, zero = along(self.scale, self.axis, x), along(self.zero, self.axis, x)
        return levels_of(x / scale, zero, self.low, self.high)


def levels_of(ratio: Tensor, zero: Tensor, low: int, high: int) -> Tensor:
    """Values divided by their scale → levels from `low` to `high`, in the values' type."""
    levels = ratio.detach().round()
    kept = levels.clamp(low - zero, high - zero)
    # by its level, not its value: a white pixel that is the range's own end may lie above it by a rounding error
    exact = torch.where(levels == kept, ratio, kept)
    return exact + (kept - exact).detach() + zero


def straight_through(x: Tensor, value: Tensor) -> Tensor:
    """`value`, with the gradient of x."""
    return x + (value - x).detach() if x.requires_grad else value


def dequantize(node: Node, levels: Tensor, scale: Tensor, zero: "Tensor | None" = None) -> Tensor:
    """scale · (level − zero point); scale and zero point of the tensor, of a channel, or of so many levels of one."""
    axis, block = node.whole("axis", 1), node.whole("block_size", 0)
    if block:
        size = levels.shape[axis]
        scale = scale.repeat_interleave(block, axis).narrow(axis, 0, size)
        zero = None if zero is None else zero.repeat_interleave(block, axis).narrow(axis, 0, size)
    if zero is not None:
        # integers first, as int32 biases exceed what float32 holds exactly
        exact = levels.to(torch.int64) if not levels.is_floating_point() else levels
        levels = exact - along(zero.to(exact.dtype), axis, levels)
    return levels.to(scale.dtype) * along(scale, axis, levels)


def _level_type(node: Node, zero: "Tensor | None") -> torch.dtype:
    """The zero point's type, else `output_dtype`, else uint8."""
    stated = node.whole("output_dtype", 0)
    if stated and stated not in LEVELS:
        raise ValueError(f"output_dtype = {TensorProto.DataType.Name(stated)} is not supported")
    if zero is None:
        return LEVELS[stated] if stated else torch.uint8
    if zero.is_floating_point():
        raise ValueError("a zero point that is computed is not supported")
    if stated and LEVELS[stated] != zero.dtype:
        raise ValueError(f"output_dtype is not the type of its zero point, {zero.dtype}")
    return zero.dtype


def along(values: Tensor, axis: int, x: Tensor) -> Tensor:
    """A scalar as it is, one value a channel in the shape that broadcasts along `axis` of x, any other as it is."""
    if values.numel() == 1:
        return values.reshape(())
    if values.ndim != 1:
        return values
    shape = [1] * x.ndim
    shape[axis] = -1
    return values.reshape(shape)


def half_types(nodes: Sequence[Node], known: Mapping[str, torch.dtype]) -> dict[str, torch.dtype]:
    """Tensor name → its half type, of those that have one; `known` are the constants'. Nodes in their order."""
    types = dict(known)
    for node in nodes:
        if node.op == "Cast":
            kind = HALF.get(node.whole("to", 0))
        elif node.op in NOT_OF_THEIR_INPUTS:
            kind = None
        elif node.op == "CastLike":
            kind = types.get(node.inputs[1])
        elif node.op == "ConstantOfShape":
            fill = node.attributes.get("value")
            kind = None if fill is None else HALF.get(fill.data_type)
        else:
            # the type of DequantizeLinear's scale is its result's
            read = node.inputs[1:2] if node.op == "DequantizeLinear" else node.inputs
            kind = next((types[name] for name in read if name in types), None)
        if kind is not None:
            types |= dict.fromkeys(node.outputs, kind)
    return types


def rounded_to_half(node: Node, outputs: tuple[Tensor, ...], halves: Mapping[str, torch.dtype]) -> tuple[Tensor, ...]:
    """What a node gives, in the half type that `half_types` found for it, if it has one."""
    kind = halves.get(node.outputs[0])
    if kind is None:
        return outputs
    return tuple(_Rounded.apply(value, kind) if value.is_floating_point() else value for value in outputs)


class _Rounded(torch.autograd.Function):
    """float32 x → float32, each value that of the nearest in a half type; the gradient straight through."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kind: torch.dtype) -> Tensor:
        return x.to(kind).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None
