"""Shape arithmetic on the host: what a graph computes from the sizes of its tensors, in numpy. Imports no torch.

Python integers cost a tenth of tensors, wait for no device, and may be symbols: of a batch whose size torch.export
leaves open, or `UNKNOWN` of a size that a file does not state. Arrays that hold such are of dtype object.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from compress.networks.graph import Node

Array = np.ndarray[Any, Any]
#: Operators that give sizes of tensors as numbers.
MEASURES = ("Shape", "Size")
#: Values of a constant that sizes are computed with, at most.
MOST_NUMBERS = 1024
#: ONNX's numbers of element types
TYPES = {1: np.float32, 6: np.int32, 7: np.int64, 9: np.bool_, 10: np.float16, 11: np.float64}
#: What the operators here may give at most where its length is computed: longer ones are no arithmetic of shapes.
LONGEST = 1 << 16


class Unknown:
    """A size that is not stated. What is computed from it is not known either, and no condition holds of it."""

    def _itself(self, *others: Any) -> "Unknown":
        return self

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __floordiv__ = __rfloordiv__ = _itself
    __mod__ = __rmod__ = __neg__ = __abs__ = __lt__ = __le__ = __gt__ = __ge__ = _itself
    __truediv__ = __rtruediv__ = __and__ = __rand__ = __or__ = __ror__ = __xor__ = __rxor__ = __invert__ = _itself
    __eq__ = __ne__ = _itself  # type: ignore[assignment]
    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> bool:
        raise ValueError("a size that is not stated decides")


UNKNOWN = Unknown()


def sizes(shape: Sequence[Any]) -> Array:
    """A shape as a vector; of dtype object where one of its sizes is a symbol."""
    if all(type(size) is int for size in shape):
        return np.array(shape, np.int64)
    result = np.empty(len(shape), object)
    result[:] = list(shape)
    return result


def is_known(values: Array) -> bool:
    return values.dtype != object or all(type(value) is int for value in values.reshape(-1))


def measured_sizes(node: Node, shape: Sequence[Any]) -> Array:
    """Of Shape and Size."""
    if node.op == "Size":
        return _array(math.prod(shape))
    return sizes(shape)[node.attributes.get("start", 0) : node.attributes.get("end")]


def computed_sizes(node: Node, inputs: "Sequence[Array | None]") -> tuple[Array, ...]:
    """What an operator of `OPERATORS_ON_SIZES` gives; whatever Python and numpy raise where it gives nothing."""
    result = OPERATORS_ON_SIZES[node.op](node, *inputs)
    return tuple(map(_array, result)) if isinstance(result, tuple) else (_array(result),)


def _array(value: Any) -> Array:
    """A number that numpy took out of its array back in one; integers alone as such."""
    if not isinstance(value, (np.ndarray, np.generic)):
        number, value = value, np.empty((), object)
        value[()] = number
    result = np.array(value, order="C")
    return result.astype(np.int64) if result.dtype == object and is_known(result) else result


def _cast(node: Node, x: Array) -> Array:
    kind = TYPES.get(node.whole("to", 0), x.dtype)  # narrow types hold sizes as their values
    return x if x.dtype == object and np.issubdtype(kind, np.integer) else x.astype(kind)


def _divide(node: Node, a: Array, b: Array) -> Array:
    """Of integers toward zero; sizes are not negative, so symbols are divided down."""
    if object in (a.dtype, b.dtype):
        return a // b
    if a.dtype.kind == "f":
        return a / b
    return (np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b))).astype(a.dtype)


def _compared(function: Callable[..., Any]) -> Callable[..., Any]:
    """A comparison; of symbols it may be one itself."""

    def operator(node: Node, *values: Array) -> Any:
        symbolic = any(value.dtype == object for value in values)
        result = function(*values, dtype=object) if symbolic else function(*values)
        try:
            return np.asarray(result).astype(np.bool_)
        except ValueError:
            return result

    return operator


def _where(node: Node, condition: Array, a: Array, b: Array) -> Array:
    return np.where(condition.astype(np.bool_), a, b)


def _axes(node: Node, axes: "Array | None") -> "list[int] | None":
    if axes is not None:
        return [int(axis) for axis in axes.reshape(-1)]
    return node.ints("axes", []) if "axes" in node.attributes else None


def _squeeze(node: Node, x: Array, axes: "Array | None" = None) -> Array:
    chosen = _axes(node, axes)
    return np.squeeze(x, tuple(chosen) if chosen else None)


def _unsqueeze(node: Node, x: Array, axes: "Array | None" = None) -> Array:
    return np.expand_dims(x, tuple(_axes(node, axes) or ()))


def _slice(node: Node, x: Array, *bounds: "Array | None") -> Array:
    """starts, ends, axes, steps: attributes before opset 10."""
    if bounds:
        given = [None if values is None else values.reshape(-1).tolist() for values in bounds]
    else:
        given = [node.ints("starts", []), node.ints("ends", []), node.ints("axes", []) or None]
    starts, ends, axes, steps = [*given, None, None][:4]
    assert starts is not None and ends is not None
    parts = [slice(None)] * x.ndim
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        axis, step = (axes or range(x.ndim))[number], (steps or [1] * x.ndim)[number]
        end = None if step < 0 and end < -x.shape[axis] else end  # before the first
        parts[axis] = slice(start, end, step)
    return x[tuple(parts)]


def _split(node: Node, x: Array, lengths: "Array | None" = None) -> tuple[Array, ...]:
    axis, count = node.whole("axis", 0), len(node.outputs)
    stated = node.ints("split", []) if lengths is None else lengths.reshape(-1).tolist()
    sections = stated or [-(-x.shape[axis] // count)] * count
    return tuple(np.split(x, np.cumsum(sections)[:-1], axis))


def _reshape(node: Node, x: Array, shape: Array) -> Array:
    keep = not node.whole("allowzero", 0)
    return x.reshape([x.shape[k] if size == 0 and keep else size for k, size in enumerate(shape.tolist())])


def _filled(node: Node, shape: Array) -> Array:
    from onnx import numpy_helper

    fill = node.attributes.get("value")
    value = np.zeros(1, np.float32) if fill is None else numpy_helper.to_array(fill)
    return np.full(_short(shape.tolist()), value.reshape(-1)[0])


def _range(node: Node, start: Array, limit: Array, step: Array) -> Array:
    values = range(int(start), int(limit), int(step))
    _short([len(values)])
    return np.array(values, start.dtype)


def _short(shape: list[int]) -> list[int]:
    if math.prod(shape) > LONGEST:
        raise ValueError(f"{shape} values are more than sizes are")
    return shape


def _reduced(function: Callable[..., Any]) -> Callable[..., Any]:
    def operator(node: Node, x: Array, axes: "Array | None" = None) -> Any:
        chosen = _axes(node, axes)
        if not chosen and node.whole("noop_with_empty_axes", 0):
            return x
        return function(x, axis=tuple(chosen) if chosen else None, keepdims=bool(node.whole("keepdims", 1)))

    return operator


def _elementwise(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda node, *values: function(*values)


#: name → operator on arrays: (node, inputs…) → its output, or all of its outputs
OPERATORS_ON_SIZES: dict[str, Callable[..., Any]] = {
    "Abs": _elementwise(np.absolute),
    "Add": _elementwise(np.add),
    "And": _compared(np.logical_and),
    "Cast": _cast,
    "Ceil": _elementwise(np.ceil),
    "Concat": lambda node, *parts: np.concatenate(parts, node.whole("axis", 0)),
    "ConstantOfShape": _filled,
    "Div": _divide,
    "Equal": _compared(np.equal),
    "Expand": lambda node, x, shape: x * np.ones(_short(shape.tolist()), x.dtype),
    "Floor": _elementwise(np.floor),
    "Gather": lambda node, x, index: np.take(x, index, node.whole("axis", 0)),
    "Greater": _compared(np.greater),
    "GreaterOrEqual": _compared(np.greater_equal),
    "Identity": lambda node, x: x,
    "Less": _compared(np.less),
    "LessOrEqual": _compared(np.less_equal),
    "Max": lambda node, *values: np.maximum.reduce(np.broadcast_arrays(*values)),
    "Min": lambda node, *values: np.minimum.reduce(np.broadcast_arrays(*values)),
    "Mod": lambda node, a, b: np.fmod(a, b) if node.whole("fmod", 0) else a % b,
    "Mul": _elementwise(np.multiply),
    "Neg": _elementwise(np.negative),
    "NonZero": lambda node, x: np.array(np.nonzero(x)),
    "Not": _compared(np.logical_not),
    "Or": _compared(np.logical_or),
    "Range": _range,
    "Pow": lambda node, base, exponent: np.power(base, exponent).astype(base.dtype),
    "Reciprocal": lambda node, x: np.reciprocal(x),
    "ReduceMax": _reduced(np.max),
    "ReduceMin": _reduced(np.min),
    "ReduceProd": _reduced(np.prod),
    "ReduceSum": _reduced(np.sum),
    "Reshape": _reshape,
    "Slice": _slice,
    "Split": _split,
    "Sqrt": _elementwise(np.sqrt),
    "Squeeze": _squeeze,
    "Sub": _elementwise(np.subtract),
    "Unsqueeze": _unsqueeze,
    "Where": _where,
}
