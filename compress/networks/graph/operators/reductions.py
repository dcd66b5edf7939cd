"""Reductions over axes."""

from collections.abc import Callable, Sequence

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
    "ReduceL1": Operator(_reduce(lambda x, axes, keepdim: x.abs().sum(axes, keepdim=keepdim)), "axes keepdims"),
    "ReduceL2": Operator(
        _reduce(lambda x, axes, keepdim: torch.linalg.vector_norm(x, 2, axes, keepdim)), "axes keepdims"
    ),
    "ReduceLogSum": Operator(_reduce(lambda x, axes, keepdim: x.sum(axes, keepdim=keepdim).log()), "axes keepdims"),
    "ReduceLogSumExp": Operator(_reduce(torch.logsumexp), "axes keepdims"),
    "ReduceMax": Operator(_reduce(_bound(torch.amax)), "axes keepdims noop_with_empty_axes"),
    "ReduceMean": Operator(_reduce(torch.mean), "axes keepdims noop_with_empty_axes"),
    "ReduceMin": Operator(_reduce(_bound(torch.amin)), "axes keepdims noop_with_empty_axes"),
    "ReduceProd": Operator(_reduce(_product), "axes keepdims noop_with_empty_axes"),
    "ReduceSum": Operator(_reduce(torch.sum), "axes keepdims noop_with_empty_axes"),
    "ReduceSumSquare": Operator(
        _reduce(lambda x, axes, keepdim: x.square().sum(axes, keepdim=keepdim)), "axes keepdims"
    ),
}
