"""Operators on integer levels. QuantizeLinear is a module of its own, as others look for it (`rounding`).

Levels that come from the image are carried in floating point, so that gradients pass; ONNX Runtime's own operators
(`com.microsoft`) are those that its quantizer writes.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from compress.networks.graph import Node, Operator
from compress.networks.graph.operators.activations import normalized
from compress.networks.graph.operators.windows import CONVOLUTION, POOL, average_pool, conv
from compress.networks.graph.rounding import along, dequantize, levels_of

#: One quantized value is three inputs: levels, scale and zero point.
TRIPLE = 3


def _centered(levels: Tensor, zero: "Tensor | None", axis: int = 0) -> Tensor:
    """Levels less their zero point, one for all or one a place of `axis`."""
    levels = levels if levels.is_floating_point() else levels.to(torch.float32)
    return levels if zero is None else levels - along(zero.to(levels.dtype), axis, levels)


def _requantized(ratio: Tensor, zero: "Tensor | None") -> Tensor:
    """Values divided by their scale → levels of the zero point's type, uint8 without one."""
    kind = torch.uint8 if zero is None else zero.dtype
    if kind.is_floating_point:
        raise ValueError("a zero point computed from the image is not supported")
    levels = torch.iinfo(kind)
    return levels_of(ratio, ratio.new_zeros(()) if zero is None else zero.to(ratio.dtype), levels.min, levels.max)


def _qlinear_conv(
    node: Node,
    x: Tensor,
    x_scale: Tensor,
    x_zero: Tensor,
    weight: Tensor,
    w_scale: Tensor,
    w_zero: Tensor,
    y_scale: Tensor,
    y_zero: Tensor,
    bias: "Tensor | None" = None,
) -> Tensor:
    """Weights have a scale a channel or one for all; the bias is in units of both scales."""
    total = conv(node, _centered(x, x_zero), _centered(weight, w_zero, 0))
    if bias is not None:
        total = total + along(bias.to(total.dtype), 1, total)
    return _requantized(total * along(x_scale * w_scale / y_scale, 1, total), y_zero)


def _conv_integer(
    node: Node, x: Tensor, weight: Tensor, x_zero: "Tensor | None" = None, w_zero: "Tensor | None" = None
) -> Tensor:
    return conv(node, _centered(x, x_zero), _centered(weight, w_zero, 0))


def _product(a: Tensor, a_zero: "Tensor | None", b: Tensor, b_zero: "Tensor | None") -> Tensor:
    """Exact, in float64: int32 holds more than float32 does. Zero points of rows of a, of columns of b."""
    return _centered(a, a_zero, -2).to(torch.float64) @ _centered(b, b_zero, -1).to(torch.float64)


def _matmul_integer(
    node: Node, a: Tensor, b: Tensor, a_zero: "Tensor | None" = None, b_zero: "Tensor | None" = None
) -> Tensor:
    return _product(a, a_zero, b, b_zero)


def _qlinear_matmul(
    node: Node,
    a: Tensor,
    a_scale: Tensor,
    a_zero: Tensor,
    b: Tensor,
    b_scale: Tensor,
    b_zero: Tensor,
    y_scale: Tensor,
    y_zero: Tensor,
) -> Tensor:
    total = _product(a, a_zero, b, b_zero)
    scale = along(a_scale, -2, total) * along(b_scale, -1, total) / along(y_scale, -2, total)
    return _requantized(total.to(scale.dtype) * scale, y_zero)


def _dynamic_quantize(node: Node, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Levels, scale and zero point of the batch as it is: its other images count. Only the levels pass a gradient."""
    least, most = x.detach().amin().clamp(max=0), x.detach().amax().clamp(min=0)
    scale = torch.where(most == least, torch.ones_like(most), most - least) / 255
    zero = (-least / scale).round().clamp(0, 255)
    return levels_of(x / scale, zero, 0, 255), scale, zero.to(torch.uint8)


# ------------------------------------------------------------------------------------------- ONNX Runtime's own


def _between(function: Callable[[Node, Tensor], Tensor]) -> Callable[..., Tensor]:
    """A function of real values as an operator on levels."""

    def operator(
        node: Node,
        x: Tensor,
        x_scale: Tensor,
        x_zero: "Tensor | None",
        y_scale: Tensor,
        y_zero: "Tensor | None" = None,
    ) -> Tensor:
        return _requantized(function(node, _centered(x, x_zero) * x_scale) / y_scale, y_zero)

    return operator


def _of_both(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    def operator(
        node: Node,
        a: Tensor,
        a_scale: Tensor,
        a_zero: "Tensor | None",
        b: Tensor,
        b_scale: Tensor,
        b_zero: "Tensor | None",
        y_scale: Tensor,
        y_zero: "Tensor | None" = None,
    ) -> Tensor:
        value = function(_centered(a, a_zero) * a_scale, _centered(b, b_zero) * b_scale)
        return _requantized(value / y_scale, y_zero)

    return operator


def _qlinear_concat(node: Node, y_scale: Tensor, y_zero: Tensor, *parts: Tensor) -> Tensor:
    triples = [parts[k : k + TRIPLE] for k in range(0, len(parts), TRIPLE)]
    values = [_centered(levels, zero) * scale for levels, scale, zero in triples]
    return _requantized(torch.cat(values, node.whole("axis", 0)) / y_scale, y_zero)


def _qlinear_where(node: Node, condition: Tensor, *values: Tensor) -> Tensor:
    return _of_both(lambda a, b: torch.where(condition, a, b))(node, *values)


def _qgemm(
    node: Node,
    a: Tensor,
    a_scale: Tensor,
    a_zero: Tensor,
    b: Tensor,
    b_scale: Tensor,
    b_zero: Tensor,
    c: "Tensor | None" = None,
    y_scale: "Tensor | None" = None,
    y_zero: "Tensor | None" = None,
) -> Tensor:
    """Levels where it has a scale for them, else real values; c is in units of both scales."""
    left, right = _centered(a, a_zero), _centered(b, b_zero, 0 if node.whole("transB", 0) else 1)
    total = (left.T if node.whole("transA", 0) else left) @ (right.T if node.whole("transB", 0) else right)
    total = total if c is None else total + c.to(total.dtype)
    scale = node.number("alpha", 1.0) * a_scale * b_scale
    return total * scale if y_scale is None else _requantized(total * (scale / y_scale), y_zero)


def _of_channels_first(function: Callable[[Node, Tensor], Tensor]) -> Callable[[Node, Tensor], Tensor]:
    def refusing(node: Node, x: Tensor) -> Tensor:
        if node.whole("channels_last", 0):
            raise ValueError("channels_last = 1 is not supported")
        if node.whole("ceil_mode", 0) and node.whole("count_include_pad", 0):  # ONNX Runtime counts what is no padding
            raise ValueError("ceil_mode = 1 with count_include_pad = 1 is not supported")
        return function(node, x)

    return refusing


def _qlinear_softmax(
    node: Node, x: Tensor, x_scale: Tensor, x_zero: "Tensor | None", y_scale: Tensor, y_zero: "Tensor | None" = None
) -> Tensor:
    """Its opset is an attribute of its own. ONNX Runtime multiplies by 1 / scale, cut to a whole number."""
    real = _centered(x, x_zero) * x_scale
    shares = normalized(replace(node, opset=node.whole("opset", 0)), real, torch.softmax)
    return _requantized(shares * (1 / y_scale).floor(), y_zero)


def _dynamic_matmul(
    node: Node, x: Tensor, weight: Tensor, scale: Tensor, zero: "Tensor | None" = None, bias: "Tensor | None" = None
) -> Tensor:
    """DynamicQuantizeLinear, MatMulInteger and what makes reals of them."""
    levels, x_scale, x_zero = _dynamic_quantize(node, x)
    total = _product(levels, x_zero, weight, zero).to(x.dtype) * (x_scale * scale)
    return total if bias is None else total + bias


QUANTIZED = {
    "ConvInteger": Operator(_conv_integer, CONVOLUTION),
    "DequantizeLinear": Operator(dequantize, "axis block_size"),
    "DynamicQuantizeLinear": Operator(_dynamic_quantize, all_outputs=True),
    "MatMulInteger": Operator(_matmul_integer),
    "QLinearConv": Operator(_qlinear_conv, CONVOLUTION),
    "QLinearMatMul": Operator(_qlinear_matmul),
    "com.microsoft.DynamicQuantizeMatMul": Operator(_dynamic_matmul),
    "com.microsoft.QGemm": Operator(_qgemm, "alpha transA transB"),
    "com.microsoft.QLinearAdd": Operator(_of_both(torch.add)),
    "com.microsoft.QLinearAveragePool": Operator(
        _between(_of_channels_first(average_pool)), f"{POOL} count_include_pad channels_last"
    ),
    "com.microsoft.QLinearConcat": Operator(_qlinear_concat, "axis"),
    "com.microsoft.QLinearGlobalAveragePool": Operator(
        _between(_of_channels_first(lambda node, x: x.mean(tuple(range(2, x.ndim)), keepdim=True))), "channels_last"
    ),
    "com.microsoft.QLinearLeakyRelu": Operator(
        _between(lambda node, x: functional.leaky_relu(x, node.number("alpha", 0.01))), "alpha"
    ),
    "com.microsoft.QLinearMul": Operator(_of_both(torch.mul)),
    "com.microsoft.QLinearSigmoid": Operator(_between(lambda node, x: x.sigmoid())),
    "com.microsoft.QLinearSoftmax": Operator(_qlinear_softmax, "axis opset"),
    "com.microsoft.QLinearWhere": Operator(_qlinear_where),
}
