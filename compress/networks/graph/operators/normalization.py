"""Normalization by statistics, of the image or learned."""

from torch import Tensor
from torch.nn import functional

from compress.networks.graph import Node, Operator


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


NORMALIZATION = {
    "BatchNormalization": Operator(_batch_normalization, "epsilon training_mode", ignores="momentum"),
    "InstanceNormalization": Operator(
        lambda node, x, scale, bias: functional.instance_norm(
            x, weight=scale, bias=bias, eps=node.number("epsilon", 1e-5)
        ),
        "epsilon",
    ),
    "LayerNormalization": Operator(_layer_normalization, "axis epsilon"),
}
