"""QuantizeLinear and DequantizeLinear in torch: integer levels forward, the gradient straight through.

Levels are carried as float numbers, all of which float32 holds exactly at 8 bits. The gradient of a value that the
integer range clips is zero, as its level does not move with it.
"""

import torch
from torch import Tensor, nn

from compress.networks.graph.node import Node


class Quantizer(nn.Module):
    """QuantizeLinear with constant scale and zero point, per tensor or along `axis`."""

    scale: Tensor
    zero: Tensor

    def __init__(self, node: Node, scale: Tensor, zero: "Tensor | None") -> None:
        super().__init__()
        _plain(node)
        levels = torch.iinfo(torch.uint8 if zero is None else zero.dtype)
        self.axis, self.low, self.high = node.whole("axis", 1), levels.min, levels.max
        self.register_buffer("scale", scale)
        self.register_buffer("zero", torch.zeros_like(scale) if zero is None else zero.to(scale.dtype))

    def forward(self, x: Tensor) -> Tensor:
        """x → levels, of x's shape; ties go to the even level before the zero point is added, as ONNX has it."""
        scale, zero = _along(self.scale, self.axis, x), _along(self.zero, self.axis, x)
        ratio = x / scale
        levels = ratio.detach().round()
        kept = levels.clamp(self.low - zero, self.high - zero)
        # by its level, not its value: a white pixel that is the range's own end may lie above it by a rounding error
        exact = torch.where(levels == kept, ratio, kept)
        return exact + (kept - exact).detach() + zero


def dequantize(node: Node, levels: Tensor, scale: Tensor, zero: "Tensor | None" = None) -> Tensor:
    """scale · (level − zero point)."""
    _plain(node)
    axis = node.whole("axis", 1)
    if zero is not None:
        # integers first, as int32 biases exceed what float32 holds exactly
        exact = levels.to(torch.int64) if not levels.is_floating_point() else levels
        levels = exact - _along(zero.to(exact.dtype), axis, levels)
    return levels.to(scale.dtype) * _along(scale, axis, levels)


def _plain(node: Node) -> None:
    if node.whole("block_size", 0):
        raise ValueError("blocked quantization is not supported")


def _along(values: Tensor, axis: int, x: Tensor) -> Tensor:
    """A scalar as it is, one value a channel in the shape that broadcasts along `axis` of x."""
    if values.numel() == 1:
        return values.reshape(())
    shape = [1] * x.ndim
    shape[axis] = -1
    return values.reshape(shape)
