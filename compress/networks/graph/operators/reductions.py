"""Reductions over axes."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from compress.networks.graph import Node, Operator
from compress.networks.graph.operators.operands import numbers


def _reduction(function: Callable[..., Tensor], reads: str = "axes keepdims") -> Operator:
    """`function(x, axes, keepdim)` as an operator; axes are an attribute, or an input in later opsets."""

    def operator(node: Node, x: Tensor, axes: "Tensor | None" = None) -> Tensor:
        chosen = node.ints("axes", []) if axes is None else numbers(axes)
        if not chosen and node.whole("noop_with_empty_axes", 0):
            return x
        return function(x, tuple(chosen) or tuple(range(x.ndim)), keepdim=bool(node.whole("keepdims", 1)))

    return Operator(operator, reads, numbers=(1,))


def _bound(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def reduced(x: Tensor, axes: Sequence[int], keepdim: bool) -> Tensor:
        if not x.numel():
            raise ValueError(f"sizes {list(x.shape)} are not supported: there is nothing to compare")
        return function(x, axes, keepdim)

    return reduced


def _product(x: Tensor, axes: Sequence[int], keepdim: bool) -> Tensor:
    for axis in sorted((axis % x.ndim for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keepdim)
    return x


def _extreme(function: Callable[..., Tensor]) -> Callable[[Node, Tensor], Tensor]:
    """The place of a largest or smallest value, of several the first, with `select_last_index` the last."""

    def operator(node: Node, x: Tensor) -> Tensor:
        axis, keepdim = node.whole("axis", 0), bool(node.whole("keepdims", 1))
        if node.whole("select_last_index", 0):
            return x.shape[axis] - 1 - function(x.flip(axis), axis, keepdim)
        return function(x, axis, keepdim)

    return operator


REDUCTIONS = {
    "ArgMax": Operator(_extreme(torch.argmax), "axis keepdims select_last_index"),
    "ArgMin": Operator(_extreme(torch.argmin), "axis keepdims select_last_index"),
    "ReduceL1": _reduction(lambda x, axes, keepdim: x.abs().sum(axes, keepdim=keepdim)),
    "ReduceL2": _reduction(lambda x, axes, keepdim: torch.linalg.vector_norm(x, 2, axes, keepdim)),
    "ReduceLogSum": _reduction(lambda x, axes, keepdim: x.sum(axes, keepdim=keepdim).log()),
    "ReduceLogSumExp": _reduction(torch.logsumexp),
    "ReduceMax": _reduction(_bound(torch.amax), "axes keepdims noop_with_empty_axes"),
    "ReduceMean": _reduction(torch.mean, "axes keepdims noop_with_empty_axes"),
    "ReduceMin": _reduction(_bound(torch.amin), "axes keepdims noop_with_empty_axes"),
    "ReduceProd": _reduction(_product, "axes keepdims noop_with_empty_axes"),
    "ReduceSum": _reduction(torch.sum, "axes keepdims noop_with_empty_axes"),
    "ReduceSumSquare": _reduction(lambda x, axes, keepdim: x.square().sum(axes, keepdim=keepdim)),
}
