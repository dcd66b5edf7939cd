"""How each operation of a program becomes a part of the graph; None where it stays the function that it is."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from compress.networks.base import Activation, Add
from compress.quantization.aliasing import functional
from compress.quantization.graph_network import BoundedReLU, MatMul

if TYPE_CHECKING:
    from compress.quantization.lowering import Lowering

aten = torch.ops.aten
#: The module under which a program has the network.
ROOT = "network"
CASTS = (aten.to.dtype, aten.to.device, aten.to.dtype_layout, aten._to_copy.default, aten.contiguous.default)
BATCH_NORMS: dict[int, Any] = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


def _convolution(lowering: "Lowering", node: Any) -> "fx.Node | None":
    x, weight, bias, stride, padding, dilation, groups = _filled(node, 7, (None, 1, 0, 1, 1))
    if not (lowering.is_constant(weight) and lowering.is_constant(bias)):
        return None
    key = (weight, bias, str((stride, padding, dilation, groups)))
    if key not in lowering.shared:
        values = lowering.weight_of(weight)
        assert values is not None
        outputs, inputs, *kernel = values.shape
        plain = nn.Conv2d(
            inputs * groups,
            outputs,
            kernel,  # type: ignore[arg-type]
            stride,
            padding,
            dilation,
            groups,
            bias=False,
            device="meta",
        )
        plain.weight, plain.bias = values, lowering.weight_of(bias)
        lowering.shared[key] = lowering.layer_path(node, weight, "conv2d")
        return lowering.call(lowering.shared[key], plain, lowering.new(x))
    return lowering.graph.call_module(lowering.shared[key], (lowering.new(x),))


def _linear(lowering: "Lowering", node: Any) -> "fx.Node | None":
    x, weight, bias = _filled(node, 3, (None,))
    return _dense(lowering, node, x, weight, bias)


def _dense(lowering: "Lowering", node: Any, x: Any, weight: Any, bias: Any, *, turned: bool = False) -> Any:
    """A linear layer of constant weights (outputs, inputs), or with `turned` (inputs, outputs)."""
    if lowering.is_constant(x) or not (lowering.is_constant(weight) and lowering.is_constant(bias)):
        return None
    key = (weight, bias, turned)
    if key not in lowering.shared:
        values = lowering.weight_of(weight)
        assert values is not None
        values = nn.Parameter(values.detach().T.contiguous()) if turned else values
        plain = nn.Linear(values.shape[1], values.shape[0], bias=False, device="meta")
        plain.weight, plain.bias = values, lowering.weight_of(bias)  # type: ignore[assignment]
        lowering.shared[key] = lowering.layer_path(node, weight, "linear")
        return lowering.call(lowering.shared[key], plain, lowering.new(x))
    return lowering.graph.call_module(lowering.shared[key], (lowering.new(x),))


def _batch_norm(lowering: "Lowering", node: Any) -> "fx.Node | None":
    x, weight, bias, mean, variance, training, momentum, eps = _filled(node, 8, ())
    constants = (weight, bias, mean, variance)
    if training or mean is None or not all(lowering.is_constant(value) for value in constants):
        return None
    rank = x.meta["val"].ndim
    bn = BATCH_NORMS[rank](lowering.value_of(mean).shape[0], eps, momentum, affine=False, device="meta")
    bn.weight, bn.bias = lowering.weight_of(weight), lowering.weight_of(bias)
    bn.running_mean, bn.running_var = lowering.value_of(mean), lowering.value_of(variance)
    original = lowering.original(lowering.where(node))
    if isinstance(original, nn.modules.batchnorm._BatchNorm):
        bn.momentum, bn.num_batches_tracked = original.momentum, original.num_batches_tracked
    before = lowering.new(x)
    layer = lowering.result.call(before, nn.Conv2d | nn.Linear) if x.target in LAYERS else None
    if layer is not None and len(lowering.live_users(x)) == 1 and lowering.calls[str(x.args[1])] == 1:
        if isinstance(layer, nn.Conv2d) and rank == 4:
            lowering.result.place(str(before.target), fuse_conv_bn_eval(layer.eval(), bn.eval()))
            return before
        if isinstance(layer, nn.Linear) and rank == 2:
            lowering.result.place(str(before.target), fuse_linear_bn_eval(layer.eval(), bn.eval()))
            return before
    if not isinstance(original, nn.modules.batchnorm._BatchNorm):  # a function of statistics that no training moves
        return None
    return lowering.call(lowering.own_path(node, "batch_norm", nn.modules.batchnorm._BatchNorm), bn, before)


def _relu(lowering: "Lowering", node: Any) -> fx.Node:
    return lowering.call(lowering.own_path(node, "relu", nn.ReLU), Activation(), lowering.new(node.args[0]))


def _bounded(lowering: "Lowering", node: Any) -> "fx.Node | None":
    """ReLU with an upper end, or clamping at 0 alone."""
    is_clamp = functional(node.target) not in (aten.hardtanh.default, aten.relu6.default)
    low, high = _filled(node, 3, (None, None) if is_clamp else (-1.0, 1.0))[1:]
    if functional(node.target) is aten.relu6.default:
        low, high = 0.0, 6.0
    if not isinstance(low, int | float) or low != 0 or not (high is None or isinstance(high, int | float)):
        return None
    if high is not None and high <= 0:
        return None
    bound = None if high is None else float(high)
    path = lowering.own_path(node, "relu", nn.ReLU6, nn.Hardtanh)
    return lowering.call(path, BoundedReLU(bound, passes_ends=is_clamp), lowering.new(node.args[0]))


def _sum(lowering: "Lowering", node: Any) -> "fx.Node | None":
    """The sum of two computed tensors of one shape."""
    a, b = node.args
    if node.kwargs.get("alpha", 1) != 1 or lowering.is_constant(a) or lowering.is_constant(b):
        return None
    shapes = {str(tuple(side.meta["val"].shape)) for side in (a, b)}
    if len(shapes) > 1 or not node.meta["val"].is_floating_point():
        return None
    path = lowering.own_path(node, "add", Add)
    return lowering.call(path, Add(), lowering.new(a), lowering.new(b))


def _product(lowering: "Lowering", node: Any) -> "fx.Node | None":
    a, b = node.args
    if lowering.is_constant(b) and b.meta["val"].ndim == 2:
        return _dense(lowering, node, a, b, None, turned=True)
    if lowering.is_constant(a) or lowering.is_constant(b):
        return None
    return lowering.call(lowering.own_path(node, "matmul"), MatMul(), lowering.new(a), lowering.new(b))


def _attention(lowering: "Lowering", node: Any) -> "fx.Node | None":
    """softmax(q kᵀ · scale + mask) v, its two products as modules."""
    q, k, v, mask, dropout, causal = _filled(node, 6, (None, 0.0, False))
    if causal or dropout or node.kwargs.get("enable_gqa"):
        return None
    graph, scale = lowering.graph, node.kwargs.get("scale")
    scale = 1 / math.sqrt(q.meta["val"].shape[-1]) if scale is None else scale
    turned = graph.call_function(aten.transpose.int, (lowering.new(k), -2, -1))
    first = lowering.own_path(node, "matmul")
    scores = lowering.call(first, MatMul(), lowering.new(q), turned)
    scores = graph.call_function(aten.mul.Tensor, (scores, scale))
    if mask is not None:
        bias = lowering.new(mask)
        if mask.meta["val"].dtype == torch.bool:
            hidden = graph.call_function(aten.logical_not.default, (bias,))
            scores = graph.call_function(aten.masked_fill.Scalar, (scores, hidden, -math.inf))
        else:
            scores = graph.call_function(aten.add.Tensor, (scores, bias))
    shares = graph.call_function(aten.softmax.int, (scores, -1))
    return lowering.call(lowering.own_path(node, "matmul"), MatMul(), shares, lowering.new(v))


def _dropout(lowering: "Lowering", node: Any) -> "fx.Node | None":
    x, share, training = node.args
    if training:
        return None
    where = lowering.where(node)
    if not isinstance(lowering.original(where), nn.Dropout):
        return lowering.new(x)
    return lowering.call(lowering.free_path(where), nn.Dropout(share), lowering.new(x))


def _cast(lowering: "Lowering", node: Any) -> "fx.Node | None":
    """Nothing, where the type stays as it is."""
    x = node.args[0]
    same = isinstance(x, fx.Node) and x.meta["val"].dtype == node.meta["val"].dtype
    return lowering.new(x) if same else None


def _filled(node: Any, count: int, defaults: "tuple[Any, ...]") -> "tuple[Any, ...]":
    """The first `count` positional arguments of a node, missing ones from the `defaults` of the last of them."""
    args = tuple(node.args)
    return (*args, *defaults[len(defaults) - (count - len(args)) :])[:count] if len(args) < count else args[:count]


LAYERS = (aten.conv2d.default, aten.conv2d.padding, aten.linear.default)
HANDLERS: dict[Any, Callable[["Lowering", Any], "fx.Node | None"]] = {
    aten.conv2d.default: _convolution,
    aten.conv2d.padding: _convolution,
    aten.linear.default: _linear,
    aten.batch_norm.default: _batch_norm,
    aten.relu.default: _relu,
    aten.relu6.default: _bounded,
    aten.hardtanh.default: _bounded,
    aten.clamp.default: _bounded,
    aten.clamp_min.default: _bounded,
    aten.add.Tensor: _sum,
    aten.matmul.default: _product,
    aten.bmm.default: _product,
    aten.mm.default: _product,
    aten.scaled_dot_product_attention.default: _attention,
    aten.dropout.default: _dropout,
    **dict.fromkeys(CASTS, _cast),
}
