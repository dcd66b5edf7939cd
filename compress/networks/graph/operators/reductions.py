"""Reductions over axes."""

from collections.abc import Callable

import torch
from torch import Tensor

from compress.networks.graph import Node, Operator
from compress.networks.graph.operators.operands import numbers


def _reduce(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`function(x, axes, keepdim)` as an operator; axes are an attribute, or an input in later opsets."""

    def operator(node: Node, x: Tensor, axes: "Tensor | None" = None) -> Tensor:
        chosen = node.ints("axes", []) if axes is None else numbers(axes)
        if not chosen and node.whole("noop_with_empty_axes", 0):
            return x
        return function(x, tuple(chosen) or tuple(range(x.ndim)), keepdim=bool(node.whole("keepdims", 1)))

    return operator


REDUCTIONS = {
    "ReduceL1": Operator(_reduce(lambda x, axes, keepdim: x.abs().sum(axes, keepdim=keepdim)), "axes keepdims"),
    "ReduceL2": Operator(
        _reduce(lambda x, axes, keepdim: torch.linalg.vector_norm(x, 2, axes, keepdim)), "axes keepdims"
    ),
    "ReduceLogSumExp": Operator(_reduce(torch.logsumexp), "axes keepdims"),
    "ReduceMax": Operator(_reduce(torch.amax), "axes keepdims noop_with_empty_axes"),
    "ReduceMean": Operator(_reduce(torch.mean), "axes keepdims noop_with_empty_axes"),
    "ReduceMin": Operator(_reduce(torch.amin), "axes keepdims noop_with_empty_axes"),
    "ReduceSum": Operator(_reduce(torch.sum), "axes keepdims noop_with_empty_axes"),
}
