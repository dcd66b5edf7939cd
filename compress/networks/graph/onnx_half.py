"""Half-precision tensors of a graph: carried in float32, rounded to their type behind each operator.

Hardware computes so too: products are summed in float32 and the sum is rounded. Gradients pass in float32, as in half
precision the small ones of a confident network would vanish.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from compress.networks.graph.node import Node

#: ONNX's numbers of element types
HALF = {10: torch.float16, 16: torch.bfloat16}


def typed(nodes: Sequence[Node], known: Mapping[str, torch.dtype]) -> dict[str, torch.dtype]:
    """Tensor name → its half type, of those that have one; `known` are the constants'. Nodes in their order."""
    found = dict(known)
    for node in nodes:
        kind = _kind(node, found)
        if kind is not None:
            found |= dict.fromkeys(node.outputs, kind)
    return found


def _kind(node: Node, found: Mapping[str, torch.dtype]) -> "torch.dtype | None":
    if node.op == "Cast":
        return HALF.get(node.whole("to", 0))
    if node.op in ("QuantizeLinear", "Shape"):
        return None
    read = node.inputs[1:2] if node.op == "DequantizeLinear" else node.inputs  # the scale's type is the result's
    return next((found[name] for name in read if name in found), None)


def rounded(node: Node, outputs: tuple[Tensor, ...], halves: Mapping[str, torch.dtype]) -> tuple[Tensor, ...]:
    """What a node gives, in the half type that `typed` found for it, if it has one."""
    kind = halves.get(node.outputs[0])
    return outputs if kind is None else tuple(_Rounded.apply(value, kind) for value in outputs)


class _Rounded(torch.autograd.Function):
    """float32 x → float32, each value that of the nearest in a half type; the gradient straight through."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kind: torch.dtype) -> Tensor:
        return x.to(kind).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None
