"""ONNX operators in torch, by name; each takes its node and its inputs. Semantics: the ONNX operator specification.

Integer tensors, which graphs compute shapes with, pass the same operators as images do.
"""

import functools
import math
from collections.abc import Callable

import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor
from torch.nn import functional

from compress.networks.graph import Node
from compress.networks.graph.rounding import dequantize
from compress.networks.graph.windows import average_pool, conv, max_pool

#: ONNX's numbers of element types; half precision is carried in float32 (`rounding`)
TYPES = dict.fromkeys((1, 10, 16), torch.float32) | {2: torch.uint8, 3: torch.int8, 5: torch.int16}
SELU_ALPHA, SELU_GAMMA = 1.6732632423543772, 1.0507009873554805
TYPES |= {4: torch.uint16, 6: torch.int32, 7: torch.int64, 9: torch.bool, 11: torch.float64}


def _cast(node: Node, x: Tensor) -> Tensor:
    kind = node.whole("to", 0)
    if kind not in TYPES:
        raise ValueError(f"to = {TensorProto.DataType.Name(kind)} is not supported")
    return x.to(TYPES[kind])


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


def _first_largest(x: Tensor, axis: int) -> Tensor:
    """1 at the largest value, of several at the first, else 0."""
    return torch.zeros_like(x).scatter(axis, x.argmax(axis, keepdim=True), 1.0)


def _batch_normalization(node: Node, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    if node.whole("training_mode", 0):
        raise ValueError("training_mode = 1 is not supported: it takes its statistics from the batch")
    if node.opset < 14 and any(node.outputs[1:]):
        raise ValueError("several outputs, its training mode before opset 14, are not supported")
    return functional.batch_norm(x, mean, var, scale, bias, eps=node.number("epsilon", 1e-5))


def _layer_normalization(node: Node, x: Tensor, scale: Tensor, bias: "Tensor | None" = None) -> Tensor:
    shape = x.shape[node.whole("axis", -1) % x.ndim :]
    scale, bias = scale.expand(shape), None if bias is None else bias.expand(shape)
    return functional.layer_norm(x, shape, scale, bias, node.number("epsilon", 1e-5))


def _dropout(node: Node, x: Tensor, ratio: "Tensor | None" = None, training: "Tensor | None" = None) -> Tensor:
    if training is not None and bool(training):
        raise ValueError("training_mode = 1 is not supported: it draws at random")
    return x


def _selu(node: Node, x: Tensor) -> Tensor:
    alpha, gamma = node.attributes.get("alpha"), node.attributes.get("gamma")
    if alpha is None and gamma is None:
        return functional.selu(x)
    alpha = SELU_ALPHA if alpha is None else alpha
    return (SELU_GAMMA if gamma is None else gamma) * functional.elu(x, alpha)


def _power(node: Node, base: Tensor, exponent: Tensor) -> Tensor:
    """In the type of the base, whatever the exponent's is."""
    return (base**exponent).to(base.dtype)


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


def _constant_of_shape(node: Node, shape: Tensor) -> Tensor:
    """Half precision is carried in float32 (`rounding`)."""
    fill = node.attributes.get("value")
    if fill is None:
        return torch.zeros(_numbers(shape), device=shape.device)
    if fill.data_type not in TYPES:
        raise ValueError(f"a value of type {TensorProto.DataType.Name(fill.data_type)} is not supported")
    kind = TYPES[fill.data_type]
    value = numpy_helper.to_array(fill).reshape(-1)[0]
    number = float(value) if kind.is_floating_point else int(value)
    return torch.full(_numbers(shape), number, dtype=kind, device=shape.device)


def _flatten(node: Node, x: Tensor) -> Tensor:
    axis = node.whole("axis", 1)
    return x.reshape(math.prod(x.shape[: axis if axis >= 0 else axis + x.ndim]), -1)


def _squeeze(node: Node, x: Tensor, axes: "Tensor | None" = None) -> Tensor:
    chosen = _given(node, "axes", axes)
    if not chosen:
        return x.squeeze()
    if any(x.shape[axis] != 1 for axis in chosen):
        raise ValueError(f"axes {chosen} of {list(x.shape)} are not all of size 1")
    return x.squeeze(tuple(chosen))


def _unsqueeze(node: Node, x: Tensor, axes: "Tensor | None" = None) -> Tensor:
    chosen = _given(node, "axes", axes) or []
    for axis in sorted(axis % (x.ndim + len(chosen)) for axis in chosen):
        x = x.unsqueeze(axis)
    return x


def _split(node: Node, x: Tensor, sizes: "Tensor | None" = None) -> tuple[Tensor, ...]:
    axis, count = node.whole("axis", 0), len(node.outputs)
    lengths = _given(node, "split", sizes)
    parts = x.split(-(-x.shape[axis] // count) if lengths is None else lengths, axis)
    if len(parts) != count or node.whole("num_outputs", count) != count:
        raise ValueError(f"{x.shape[axis]} rows do not make {count} outputs")
    return parts


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
    parts = [slice(None)] * x.ndim
    for axis, *bounds in zip(along, first, last, by, strict=True):
        if bounds[2] < 0:  # torch takes no step backwards
            places = range(*slice(*bounds).indices(x.shape[axis]))
            x = x.index_select(axis, torch.tensor(places, dtype=torch.int64, device=x.device))
        else:
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
    if mode not in ("reflect", "edge", "wrap"):
        raise ValueError(f"mode {mode} is not supported")
    for axis, (before, behind) in sides.items():  # what is cut off is not repeated
        x = x.narrow(axis, max(-before, 0), x.shape[axis] - max(-before, 0) - max(-behind, 0))
        places = _repeated(x.shape[axis], max(before, 0), max(behind, 0), mode)
        x = x.index_select(axis, places.to(x.device))
    return x


def _repeated(size: int, before: int, behind: int, mode: str) -> Tensor:
    """Places along an axis, in an image of that size which goes on on both sides."""
    places = torch.arange(-before, size + behind)
    if mode == "edge":
        return places.clamp(0, size - 1)
    if mode == "wrap" or size == 1:
        return places % size
    places = places % (2 * size - 2)
    return torch.where(places < size, places, 2 * size - 2 - places)


def _gather(node: Node, x: Tensor, index: Tensor) -> Tensor:
    axis = node.whole("axis", 0) % x.ndim
    flat, size = index.reshape(-1).to(torch.int64), x.shape[axis]
    if bool(((flat < -size) | (flat >= size)).any()):
        raise ValueError(f"an index lies outside of {size} rows")
    flat = flat % size
    return x.index_select(axis, flat).reshape([*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]])


#: name → operator: (node, inputs…) → its output, or all of its outputs
OPERATORS: dict[str, Callable[..., "Tensor | tuple[Tensor, ...]"]] = {
    "Abs": lambda node, x: x.abs(),
    "Add": lambda node, a, b: a + b,
    "AveragePool": average_pool,
    "BatchNormalization": _batch_normalization,
    "Cast": _cast,
    "Celu": lambda node, x: functional.celu(x, node.number("alpha", 1.0)),
    "Clip": _clip,
    "Concat": lambda node, *parts: torch.cat(parts, node.whole("axis", 0)),
    "ConstantOfShape": _constant_of_shape,
    "Conv": conv,
    "DequantizeLinear": dequantize,
    "Div": _divide,
    "Dropout": _dropout,
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
    "Hardmax": lambda node, x: _normalized(node, x, _first_largest),
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
    "Mean": lambda node, *values: functools.reduce(torch.add, values) / len(values),
    "Min": lambda node, *values: functools.reduce(torch.minimum, values),
    "Mish": lambda node, x: functional.mish(x),
    "Mul": lambda node, a, b: a * b,
    "Neg": lambda node, x: -x,
    "Pad": _pad,
    "Pow": _power,
    "PRelu": lambda node, x, slope: torch.where(x < 0, slope * x, x),
    "Reciprocal": lambda node, x: 1 / x,
    "ReduceL1": _reduce(lambda x, axes, keepdim: x.abs().sum(axes, keepdim=keepdim)),
    "ReduceL2": _reduce(lambda x, axes, keepdim: torch.linalg.vector_norm(x, 2, axes, keepdim)),
    "ReduceLogSumExp": _reduce(torch.logsumexp),
    "ReduceMax": _reduce(torch.amax),
    "ReduceMean": _reduce(torch.mean),
    "ReduceMin": _reduce(torch.amin),
    "ReduceSum": _reduce(torch.sum),
    "Relu": lambda node, x: x.relu(),
    "Reshape": _reshape,
    "Selu": _selu,
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
    "Softsign": lambda node, x: functional.softsign(x),
    "Tanh": lambda node, x: x.tanh(),
    "ThresholdedRelu": lambda node, x: torch.where(x > node.number("alpha", 1.0), x, torch.zeros_like(x)),
    "Transpose": lambda node, x: x.permute(node.ints("perm", range(x.ndim)[::-1])),
    "Unsqueeze": _unsqueeze,
}
