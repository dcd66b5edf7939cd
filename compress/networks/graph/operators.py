"""ONNX operators in torch, by name; each takes its node and its inputs. Semantics: the ONNX operator specification.

Integer tensors, which graphs compute shapes with, pass the same operators as images do.
"""

import functools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from compress.networks.graph import Node
from compress.networks.graph.rounding import dequantize

#: ONNX's numbers of element types; half precision is carried in float32 (`rounding`)
TYPES = dict.fromkeys((1, 10, 16), torch.float32) | {2: torch.uint8, 3: torch.int8, 5: torch.int16}
TYPES |= {6: torch.int32, 7: torch.int64, 9: torch.bool, 11: torch.float64}


def _gemm(node: Node, a: Tensor, b: Tensor, c: "Tensor | None" = None) -> Tensor:
    a = a.T if node.whole("transA", 0) else a
    b = b.T if node.whole("transB", 0) else b
    product = node.number("alpha", 1.0) * (a @ b)
    return product if c is None else product + node.number("beta", 1.0) * c


def _divide(node: Node, a: Tensor, b: Tensor) -> Tensor:
    whole = not (a.is_floating_point() or b.is_floating_point())
    return torch.div(a, b, rounding_mode="trunc") if whole else a / b


def _clip(node: Node, x: Tensor, low: "Tensor | None" = None, high: "Tensor | None" = None) -> Tensor:
    """Bounds are inputs since opset 11, attributes before."""
    least = node.attributes.get("min") if low is None else low.item()
    most = node.attributes.get("max") if high is None else high.item()
    return x if least is None and most is None else x.clamp(least, most)


def _normalized(node: Node, x: Tensor, function: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Along one axis since opset 13; before, over everything from that axis on."""
    if node.opset >= 13:
        return function(x, node.whole("axis", -1))
    axis = node.whole("axis", 1) % x.ndim
    return function(x.flatten(axis), -1).reshape(x.shape)


def _batch_normalization(node: Node, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    if node.whole("training_mode", 0):
        raise ValueError("training mode is not supported")
    return functional.batch_norm(x, mean, var, scale, bias, eps=node.number("epsilon", 1e-5))


def _layer_normalization(node: Node, x: Tensor, scale: Tensor, bias: "Tensor | None" = None) -> Tensor:
    axis = node.whole("axis", -1) % x.ndim
    return functional.layer_norm(x, x.shape[axis:], scale, bias, node.number("epsilon", 1e-5))


# ------------------------------------------------------------------------------------------- reductions


def _reduce(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`function(x, axes, keepdim)` as an operator; axes are an attribute, or an input in later opsets."""

    def operator(node: Node, x: Tensor, axes: "Tensor | None" = None) -> Tensor:
        chosen = node.ints("axes", []) if axes is None else _numbers(axes)
        if not chosen and node.whole("noop_with_empty_axes", 0):
            return x
        return function(x, tuple(chosen) or tuple(range(x.ndim)), keepdim=bool(node.whole("keepdims", 1)))

    return operator


# ------------------------------------------------------------------------------------------- shapes


def _numbers(values: Tensor) -> list[int]:
    return [int(value) for value in values.reshape(-1).tolist()]


def _given(node: Node, name: str, values: "Tensor | None") -> "list[int] | None":
    """What is an input in later opsets and an attribute in earlier ones; None where it is neither."""
    if values is not None:
        return _numbers(values)
    return node.ints(name, []) if name in node.attributes else None


def _reshape(node: Node, x: Tensor, shape: Tensor) -> Tensor:
    """0 keeps a size, unless `allowzero`; −1 is what is left."""
    keep = not node.whole("allowzero", 0)
    sizes = [x.shape[k] if size == 0 and keep else size for k, size in enumerate(_numbers(shape))]
    return x.reshape(sizes)


def _flatten(node: Node, x: Tensor) -> Tensor:
    axis = node.whole("axis", 1)
    return x.reshape(math.prod(x.shape[: axis if axis >= 0 else axis + x.ndim]), -1)


def _squeeze(node: Node, x: Tensor, axes: "Tensor | None" = None) -> Tensor:
    chosen = _given(node, "axes", axes)
    return x.squeeze() if chosen is None else x.squeeze(tuple(chosen))


def _unsqueeze(node: Node, x: Tensor, axes: "Tensor | None" = None) -> Tensor:
    chosen = _given(node, "axes", axes) or []
    for axis in sorted(axis % (x.ndim + len(chosen)) for axis in chosen):
        x = x.unsqueeze(axis)
    return x


def _split(node: Node, x: Tensor, sizes: "Tensor | None" = None) -> tuple[Tensor, ...]:
    axis = node.whole("axis", 0)
    lengths = _given(node, "split", sizes)
    if lengths is not None:
        return x.split(lengths, axis)
    return x.split(-(-x.shape[axis] // len(node.outputs)), axis)


def _slice(
    node: Node,
    x: Tensor,
    starts: "Tensor | None" = None,
    ends: "Tensor | None" = None,
    axes: "Tensor | None" = None,
    steps: "Tensor | None" = None,
) -> Tensor:
    first, last = _given(node, "starts", starts) or [], _given(node, "ends", ends) or []
    along = _given(node, "axes", axes) or list(range(len(first)))
    by = _given(node, "steps", steps) or [1] * len(first)
    if min(by) < 1:
        raise ValueError("a step backwards is not supported")
    parts = [slice(None)] * x.ndim
    for axis, *bounds in zip(along, first, last, by, strict=True):
        parts[axis] = slice(*bounds)
    return x[tuple(parts)]


def _pad(
    node: Node,
    x: Tensor,
    pads: "Tensor | None" = None,
    value: "Tensor | None" = None,
    axes: "Tensor | None" = None,
) -> Tensor:
    amounts = _given(node, "pads", pads) or []
    along = _given(node, "axes", axes) or list(range(x.ndim))
    sides = {axis % x.ndim: (amounts[k], amounts[k + len(along)]) for k, axis in enumerate(along)}
    pairs = [side for axis in reversed(range(x.ndim)) for side in sides.get(axis, (0, 0))]
    mode = node.text("mode", "constant")
    if mode == "constant":
        return functional.pad(x, pairs, value=node.number("value", 0.0) if value is None else value.item())
    if any(pairs[4:]):
        raise ValueError(f"mode {mode} beyond height and width is not supported")
    return functional.pad(x, pairs[:4], {"reflect": "reflect", "edge": "replicate", "wrap": "circular"}[mode])


def _gather(node: Node, x: Tensor, index: Tensor) -> Tensor:
    axis = node.whole("axis", 0) % x.ndim
    flat = index.reshape(-1).to(torch.int64) % x.shape[axis]
    return x.index_select(axis, flat).reshape(*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])


# ------------------------------------------------------------------------------------------- windows over an image

CONVOLUTIONS = {3: functional.conv1d, 4: functional.conv2d, 5: functional.conv3d}


def conv(node: Node, x: Tensor, weight: Tensor, bias: "Tensor | None" = None) -> Tensor:
    """x (B,C,…), weight (O,C/groups,…), bias (O,)."""
    kernel = list(weight.shape[2:])
    strides, dilations = node.ints("strides", [1] * len(kernel)), node.ints("dilations", [1] * len(kernel))
    pads = _pads(node, x, kernel, strides, dilations)
    groups = node.whole("group", 1)
    half = len(kernel)
    if pads[:half] == pads[half:]:
        return CONVOLUTIONS[x.ndim](x, weight, bias, strides, pads[:half], dilations, groups)
    return CONVOLUTIONS[x.ndim](_padded(x, pads, 0.0), weight, bias, strides, 0, dilations, groups)


def max_pool(node: Node, x: Tensor) -> Tensor:
    kernel, strides, dilations, ceil = _window(node)
    padded = _padded(x, _pads(node, x, kernel, strides, dilations), -torch.inf)
    return functional.max_pool2d(padded, kernel, strides, 0, dilations, ceil)


def average_pool(node: Node, x: Tensor) -> Tensor:
    """Without `count_include_pad` a window is averaged over the pixels of the image that it holds."""
    kernel, strides, dilations, ceil = _window(node)
    if any(size != 1 for size in dilations):
        raise ValueError("dilations of an average are not supported")
    pads = _pads(node, x, kernel, strides, dilations)
    total = functional.avg_pool2d(_padded(x, pads, 0.0), kernel, strides, 0, ceil)
    if node.whole("count_include_pad", 0) or not any(pads):
        return total
    ones = _padded(torch.ones_like(x[:1, :1]), pads, 0.0)
    return total / functional.avg_pool2d(ones, kernel, strides, 0, ceil)


def _window(node: Node) -> tuple[list[int], list[int], list[int], bool]:
    kernel = node.ints("kernel_shape", [])
    ones = [1] * len(kernel)
    if len(kernel) != 2:
        raise ValueError(f"a window of {len(kernel)} dimensions is not supported")
    return kernel, node.ints("strides", ones), node.ints("dilations", ones), bool(node.whole("ceil_mode", 0))


def _pads(node: Node, x: Tensor, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> list[int]:
    mode = node.text("auto_pad", "NOTSET")
    if mode == "NOTSET":
        return node.ints("pads", [0] * 2 * len(kernel))
    if mode == "VALID":
        return [0] * 2 * len(kernel)
    begins, ends = [], []
    for size, width, stride, dilation in zip(x.shape[2:], kernel, strides, dilations, strict=True):
        total = max((-(-size // stride) - 1) * stride + (width - 1) * dilation + 1 - size, 0)
        small, large = total // 2, total - total // 2
        begins.append(small if mode == "SAME_UPPER" else large)
        ends.append(large if mode == "SAME_UPPER" else small)
    return [*begins, *ends]


def _padded(x: Tensor, pads: Sequence[int], value: float) -> Tensor:
    if not any(pads):
        return x
    half = len(pads) // 2
    pairs = [side for k in reversed(range(half)) for side in (pads[k], pads[half + k])]
    return functional.pad(x, pairs, value=value)


#: name → operator: (node, inputs…) → its output, or all of its outputs
OPERATORS: dict[str, Callable[..., "Tensor | tuple[Tensor, ...]"]] = {
    "Abs": lambda node, x: x.abs(),
    "Add": lambda node, a, b: a + b,
    "AveragePool": average_pool,
    "BatchNormalization": _batch_normalization,
    "Cast": lambda node, x: x.to(TYPES[node.whole("to", 0)]),
    "Clip": _clip,
    "Concat": lambda node, *parts: torch.cat(parts, node.whole("axis", 0)),
    "Conv": conv,
    "DequantizeLinear": dequantize,
    "Div": _divide,
    "Dropout": lambda node, x, *rest: x,
    "Elu": lambda node, x: functional.elu(x, node.number("alpha", 1.0)),
    "Erf": lambda node, x: x.erf(),
    "Exp": lambda node, x: x.exp(),
    "Expand": lambda node, x, shape: x.expand(torch.broadcast_shapes(x.shape, tuple(_numbers(shape)))),
    "Flatten": _flatten,
    "Gather": _gather,
    "Gelu": lambda node, x: functional.gelu(x, approximate=node.text("approximate", "none")),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda node, x: x.mean(tuple(range(2, x.ndim)), keepdim=True),
    "GlobalMaxPool": lambda node, x: x.amax(tuple(range(2, x.ndim)), keepdim=True),
    "HardSigmoid": lambda node, x: (node.number("alpha", 0.2) * x + node.number("beta", 0.5)).clamp(0, 1),
    "HardSwish": lambda node, x: x * (x / 6 + 0.5).clamp(0, 1),
    "Identity": lambda node, x: x,
    "InstanceNormalization": lambda node, x, scale, bias: functional.instance_norm(
        x, weight=scale, bias=bias, eps=node.number("epsilon", 1e-5)
    ),
    "LayerNormalization": _layer_normalization,
    "LeakyRelu": lambda node, x: functional.leaky_relu(x, node.number("alpha", 0.01)),
    "Log": lambda node, x: x.log(),
    "LogSoftmax": lambda node, x: _normalized(node, x, torch.log_softmax),
    "MatMul": lambda node, a, b: a @ b,
    "Max": lambda node, *values: functools.reduce(torch.maximum, values),
    "MaxPool": max_pool,
    "Min": lambda node, *values: functools.reduce(torch.minimum, values),
    "Mish": lambda node, x: functional.mish(x),
    "Mul": lambda node, a, b: a * b,
    "Neg": lambda node, x: -x,
    "Pad": _pad,
    "Pow": lambda node, a, b: a**b,
    "PRelu": lambda node, x, slope: torch.where(x < 0, slope * x, x),
    "Reciprocal": lambda node, x: 1 / x,
    "ReduceMax": _reduce(torch.amax),
    "ReduceMean": _reduce(torch.mean),
    "ReduceSum": _reduce(torch.sum),
    "Relu": lambda node, x: x.relu(),
    "Reshape": _reshape,
    "Selu": lambda node, x: functional.selu(x),
    "Shape": lambda node, x: torch.tensor(x.shape)[node.attributes.get("start", 0) : node.attributes.get("end")],
    "Sigmoid": lambda node, x: x.sigmoid(),
    "Slice": _slice,
    "Softmax": lambda node, x: _normalized(node, x, torch.softmax),
    "Softplus": lambda node, x: functional.softplus(x, threshold=1e9),
    "Split": _split,
    "Sqrt": lambda node, x: x.sqrt(),
    "Squeeze": _squeeze,
    "Sub": lambda node, a, b: a - b,
    "Sum": lambda node, *values: functools.reduce(torch.add, values),
    "Swish": lambda node, x: x * (node.number("alpha", 1.0) * x).sigmoid(),
    "Tanh": lambda node, x: x.tanh(),
    "Transpose": lambda node, x: x.permute(node.ints("perm", range(x.ndim)[::-1])),
    "Unsqueeze": _unsqueeze,
}
