"""Normalization by statistics, of the image or learned."""

import torch
from torch import Tensor
from torch.nn import functional

from compress.networks.graph import Node, Operator


def _batch_normalization(node: Node, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    if node.whole("training_mode", 0):
        raise ValueError("training_mode = 1 is not supported: it takes its statistics from the batch")
    if node.opset < 14 and any(node.outputs[1:]):
        raise ValueError("several outputs, its training mode before opset 14, are not supported")
    return functional.batch_norm(x, mean, var, scale, bias, eps=node.number("epsilon", 1e-5))


def _layer_normalization(
    node: Node, x: Tensor, scale: Tensor, bias: "Tensor | None" = None
) -> "Tensor | tuple[Tensor, ...]":
    """And mean and inverse deviation, where they are asked for."""
    shape = x.shape[node.whole("axis", -1) % x.ndim :]
    scale, bias = scale.expand(shape), None if bias is None else bias.expand(shape)
    eps = node.number("epsilon", 1e-5)
    result = functional.layer_norm(x, shape, scale, bias, eps)
    if not any(node.outputs[1:]):
        return result
    variance, mean = torch.var_mean(x, tuple(range(-len(shape), 0)), correction=0, keepdim=True)
    return result, mean, torch.rsqrt(variance + eps)


def _group_normalization(node: Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Scale and bias of each group before opset 21, of each channel since."""
    groups, eps = node.whole("num_groups", 1), node.number("epsilon", 1e-5)
    repeats = 1 if node.opset >= 21 else x.shape[1] // groups
    scale, bias = scale.repeat_interleave(repeats), bias.repeat_interleave(repeats)
    return functional.group_norm(x, groups, scale, bias, eps)


def _rms_normalization(node: Node, x: Tensor, scale: Tensor) -> Tensor:
    axes = tuple(range(node.whole("axis", -1) % x.ndim, x.ndim))
    return x * torch.rsqrt(x.square().mean(axes, keepdim=True) + node.number("epsilon", 1e-5)) * scale


def _local_response_normalization(node: Node, x: Tensor) -> Tensor:
    """Over neighboring channels: x (B,C,…); what lies beside the first and the last is zero."""
    size = node.whole("size", 1)
    squares = x.square().unsqueeze(1).flatten(3)
    before = (size - 1) // 2
    means = functional.avg_pool2d(functional.pad(squares, (0, 0, before, size - 1 - before)), (size, 1), 1)
    base = node.number("bias", 1.0) + node.number("alpha", 1e-4) * means.reshape(x.shape)
    return x / base ** node.number("beta", 0.75)


def _lp_normalization(node: Node, x: Tensor) -> Tensor:
    """Zero where all is zero."""
    norm = torch.linalg.vector_norm(x, node.whole("p", 2), node.whole("axis", -1), keepdim=True)
    return x / torch.where(norm == 0, torch.ones_like(norm), norm)


def _mean_variance_normalization(node: Node, x: Tensor) -> Tensor:
    axes = [axis % x.ndim for axis in node.ints("axes", [0, 2, 3])]
    if 0 in axes and x.shape[0] != 1:
        raise ValueError(f"axes = {axes} is not supported: it takes its statistics from the batch")
    centered = x - x.mean(axes, keepdim=True)
    variance = centered.square().mean(axes, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)  # √0 has no gradient
    return centered / (variance.sqrt() + 1e-9)


def _skip_layer_normalization(
    node: Node,
    x: Tensor,
    skip: Tensor,
    scale: Tensor,
    shift: "Tensor | None" = None,
    bias: "Tensor | None" = None,
) -> tuple[Tensor, ...]:
    """Of a sum, which is its fourth output; the statistics between are not given."""
    if any(node.outputs[1:3]):
        raise ValueError("outputs mean and inv_std_var are not supported")
    total = x + skip if bias is None else x + skip + bias
    result = functional.layer_norm(total, total.shape[-1:], scale, shift, node.number("epsilon", 1e-12))
    return result, result, result, total


NORMALIZATION = {
    "BatchNormalization": Operator(_batch_normalization, "epsilon training_mode", ignores="momentum"),
    "GroupNormalization": Operator(_group_normalization, "epsilon num_groups"),
    "InstanceNormalization": Operator(
        lambda node, x, scale, bias: functional.instance_norm(
            x, weight=scale, bias=bias, eps=node.number("epsilon", 1e-5)
        ),
        "epsilon",
    ),
    "LayerNormalization": Operator(_layer_normalization, "axis epsilon", all_outputs=True),
    "LRN": Operator(_local_response_normalization, "alpha beta bias size"),
    "LpNormalization": Operator(_lp_normalization, "axis p"),
    "MeanVarianceNormalization": Operator(_mean_variance_normalization, "axes"),
    "RMSNormalization": Operator(_rms_normalization, "axis epsilon"),
    "com.microsoft.SkipLayerNormalization": Operator(_skip_layer_normalization, "epsilon", all_outputs=True),
}
