"""Arithmetic, value by value, and products of matrices."""

import functools

import torch
from onnx import TensorProto
from torch import Tensor

from compress.networks.graph import Node, Operator
from compress.networks.graph.operators.operands import TYPES


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


def _power(node: Node, base: Tensor, exponent: Tensor) -> Tensor:
    """In the type of the base, whatever the exponent's is."""
    return (base**exponent).to(base.dtype)


ARITHMETIC = {
    "Abs": Operator(lambda node, x: x.abs()),
    "Add": Operator(lambda node, a, b: a + b),
    "Cast": Operator(_cast, "to", ignores="saturate round_mode"),
    "Div": Operator(_divide),
    "Erf": Operator(lambda node, x: x.erf()),
    "Exp": Operator(lambda node, x: x.exp()),
    "Gemm": Operator(_gemm, "alpha beta transA transB"),
    "Identity": Operator(lambda node, x: x),
    "Log": Operator(lambda node, x: x.log()),
    "MatMul": Operator(lambda node, a, b: a @ b),
    "Max": Operator(lambda node, *values: functools.reduce(torch.maximum, values)),
    "Mean": Operator(lambda node, *values: functools.reduce(torch.add, values) / len(values)),
    "Min": Operator(lambda node, *values: functools.reduce(torch.minimum, values)),
    "Mul": Operator(lambda node, a, b: a * b),
    "Neg": Operator(lambda node, x: -x),
    "Pow": Operator(_power),
    "Reciprocal": Operator(lambda node, x: 1 / x),
    "Sqrt": Operator(lambda node, x: x.sqrt()),
    "Sub": Operator(lambda node, a, b: a - b),
    "Sum": Operator(lambda node, *values: functools.reduce(torch.add, values)),
}
