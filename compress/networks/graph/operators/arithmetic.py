"""Arithmetic, value by value, and products of matrices."""

import functools
from collections.abc import Callable

import torch
from onnx import TensorProto
from torch import Tensor

from compress.networks.graph import Node, Operator
from compress.networks.graph.operators.operands import TYPES
from compress.networks.graph.rounding import LEVELS, straight_through


def _cast(node: Node, x: Tensor) -> Tensor:
    """What is cut to 8 or 16 bits stays in floating point, as all levels do, so that gradients pass."""
    kind = node.whole("to", 0)
    if kind not in TYPES:
        raise ValueError(f"to = {TensorProto.DataType.Name(kind)} is not supported")
    if TYPES[kind] in LEVELS.values() and x.is_floating_point():
        return straight_through(x, x.to(TYPES[kind]).to(x.dtype))
    return x.to(TYPES[kind])


def _gemm(node: Node, a: Tensor, b: Tensor, c: "Tensor | None" = None) -> Tensor:
    a = a.T if node.whole("transA", 0) else a
    b = b.T if node.whole("transB", 0) else b
    product = node.number("alpha", 1.0) * (a @ b)
    return product if c is None else product + node.number("beta", 1.0) * c


def _divide(node: Node, a: Tensor, b: Tensor) -> Tensor:
    whole = not (a.is_floating_point() or b.is_floating_point())
    return torch.div(a, b, rounding_mode="trunc") if whole else a / b


def _power(node: Node, base: Tensor, exponent: Tensor) -> Tensor:
    """In the type of the base, whatever the exponent's is."""
    return (base**exponent).to(base.dtype)


def _fused_matmul(node: Node, a: Tensor, b: Tensor) -> Tensor:
    """ONNX Runtime's own."""
    for name in ("transBatchA", "transBatchB"):
        if node.whole(name, 0):
            raise ValueError(f"attribute {name} = 1 is not supported")
    a = a.mT if node.whole("transA", 0) else a
    b = b.mT if node.whole("transB", 0) else b
    return node.number("alpha", 1.0) * (a @ b)


def _stepwise(function: Callable[[Tensor], Tensor]) -> Callable[[Node, Tensor], Tensor]:
    """What rounds, the gradient straight through."""
    return lambda node, x: straight_through(x, function(x)) if x.is_floating_point() else function(x)


def _sign(node: Node, x: Tensor) -> Tensor:
    """The gradient straight through between −1 and 1, as networks of binary activations are trained."""
    return straight_through(x.clamp(-1, 1), x.sign()) if x.is_floating_point() else x.sign()


def _is_infinite(node: Node, x: Tensor) -> Tensor:
    above, below = bool(node.whole("detect_positive", 1)), bool(node.whole("detect_negative", 1))
    return (x.isposinf() & above) | (x.isneginf() & below)


ARITHMETIC = {
    "Abs": Operator(lambda node, x: x.abs()),
    "Acos": Operator(lambda node, x: x.acos()),
    "Acosh": Operator(lambda node, x: x.acosh()),
    "Add": Operator(lambda node, a, b: a + b),
    "Asin": Operator(lambda node, x: x.asin()),
    "Asinh": Operator(lambda node, x: x.asinh()),
    "Atan": Operator(lambda node, x: x.atan()),
    "Atanh": Operator(lambda node, x: x.atanh()),
    "Cast": Operator(_cast, "to", ignores="saturate round_mode"),
    "Ceil": Operator(_stepwise(torch.ceil)),
    "Cos": Operator(lambda node, x: x.cos()),
    "Cosh": Operator(lambda node, x: x.cosh()),
    "Det": Operator(lambda node, x: torch.linalg.det(x)),
    "Div": Operator(_divide),
    "Einsum": Operator(
        lambda node, *values: torch.einsum(node.text("equation", "").replace(" ", ""), *values), "equation"
    ),
    "Erf": Operator(lambda node, x: x.erf()),
    "Exp": Operator(lambda node, x: x.exp()),
    "Floor": Operator(_stepwise(torch.floor)),
    "Gemm": Operator(_gemm, "alpha beta transA transB"),
    "Identity": Operator(lambda node, x: x),
    "IsInf": Operator(_is_infinite, "detect_negative detect_positive"),
    "IsNaN": Operator(lambda node, x: x.isnan()),
    "Log": Operator(lambda node, x: x.log()),
    "MatMul": Operator(lambda node, a, b: a @ b),
    "Max": Operator(lambda node, *values: functools.reduce(torch.maximum, values)),
    "Mean": Operator(lambda node, *values: functools.reduce(torch.add, values) / len(values)),
    "Min": Operator(lambda node, *values: functools.reduce(torch.minimum, values)),
    "Mul": Operator(lambda node, a, b: a * b),
    "Neg": Operator(lambda node, x: -x),
    "Pow": Operator(_power),
    "Reciprocal": Operator(lambda node, x: 1 / x),
    "Round": Operator(_stepwise(torch.round)),
    "Sign": Operator(_sign),
    "Sin": Operator(lambda node, x: x.sin()),
    "Sinh": Operator(lambda node, x: x.sinh()),
    "Sqrt": Operator(lambda node, x: x.sqrt()),
    "Sub": Operator(lambda node, a, b: a - b),
    "Sum": Operator(lambda node, *values: functools.reduce(torch.add, values)),
    "Tan": Operator(lambda node, x: x.tan()),
    "com.microsoft.FusedMatMul": Operator(_fused_matmul, "alpha transA transB transBatchA transBatchB"),
}
