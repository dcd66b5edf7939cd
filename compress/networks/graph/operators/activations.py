"""Activation functions, softmax among them."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from compress.networks.graph import Node, Operator

SELU_ALPHA, SELU_GAMMA = 1.6732632423543772, 1.0507009873554805


def normalized(node: Node, x: Tensor, function: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Along one axis since opset 13; before, over everything from that axis on."""
    if node.opset >= 13:
        return function(x, node.whole("axis", -1))
    axis = node.whole("axis", 1) % x.ndim
    return function(x.flatten(axis), -1).reshape(x.shape)


def _first_largest(x: Tensor, axis: int) -> Tensor:
    """1 at the largest value, of several at the first, else 0."""
    return torch.zeros_like(x).scatter(axis, x.argmax(axis, keepdim=True), 1.0)


def _selu(node: Node, x: Tensor) -> Tensor:
    alpha, gamma = node.attributes.get("alpha"), node.attributes.get("gamma")
    if alpha is None and gamma is None:
        return functional.selu(x)
    alpha = SELU_ALPHA if alpha is None else alpha
    return (SELU_GAMMA if gamma is None else gamma) * functional.elu(x, alpha)


def _clip(node: Node, x: Tensor, low: "Tensor | None" = None, high: "Tensor | None" = None) -> Tensor:
    """Bounds are inputs since opset 11, attributes before."""
    least = node.attributes.get("min") if low is None else low.item()
    most = node.attributes.get("max") if high is None else high.item()
    return x if least is None and most is None else x.clamp(least, most)


def _dropout(node: Node, x: Tensor, ratio: "Tensor | None" = None, training: "Tensor | None" = None) -> Tensor:
    if training is not None and bool(training):
        raise ValueError("training_mode = 1 is not supported: it draws at random")
    return x


def _shrink(node: Node, x: Tensor) -> Tensor:
    bias, bound = node.number("bias", 0.0), node.number("lambd", 0.5)
    shifted = torch.where(x > bound, x - bias, torch.zeros_like(x))
    return torch.where(x < -bound, x + bias, shifted)


def _gelu_of_sum(approximate: str) -> Callable[..., Tensor]:
    """ONNX Runtime's own, of x or of x and a bias."""

    def operator(node: Node, x: Tensor, bias: "Tensor | None" = None) -> Tensor:
        return functional.gelu(x if bias is None else x + bias, approximate=approximate)

    return operator


ACTIVATIONS = {
    "Celu": Operator(lambda node, x: functional.celu(x, node.number("alpha", 1.0)), "alpha"),
    "Clip": Operator(_clip, "min max", numbers=(1, 2)),
    "Dropout": Operator(_dropout, ignores="ratio seed", numbers=(1, 2)),
    "Elu": Operator(lambda node, x: functional.elu(x, node.number("alpha", 1.0)), "alpha"),
    "Gelu": Operator(lambda node, x: functional.gelu(x, approximate=node.text("approximate", "none")), "approximate"),
    "Hardmax": Operator(lambda node, x: normalized(node, x, _first_largest), "axis"),
    "HardSigmoid": Operator(
        lambda node, x: (node.number("alpha", 0.2) * x + node.number("beta", 0.5)).clamp(0, 1), "alpha beta"
    ),
    "HardSwish": Operator(lambda node, x: x * (x / 6 + 0.5).clamp(0, 1)),
    "LeakyRelu": Operator(lambda node, x: functional.leaky_relu(x, node.number("alpha", 0.01)), "alpha"),
    "LogSoftmax": Operator(lambda node, x: normalized(node, x, torch.log_softmax), "axis"),
    "Mish": Operator(lambda node, x: functional.mish(x)),
    "PRelu": Operator(lambda node, x, slope: torch.where(x < 0, slope * x, x)),
    "Relu": Operator(lambda node, x: x.relu()),
    "Selu": Operator(_selu, "alpha gamma"),
    "Shrink": Operator(_shrink, "bias lambd"),
    "Sigmoid": Operator(lambda node, x: x.sigmoid()),
    "Softmax": Operator(lambda node, x: normalized(node, x, torch.softmax), "axis"),
    "Softplus": Operator(lambda node, x: functional.softplus(x, threshold=1e9)),
    "Softsign": Operator(lambda node, x: functional.softsign(x)),
    "Swish": Operator(lambda node, x: x * (node.number("alpha", 1.0) * x).sigmoid(), "alpha"),
    "Tanh": Operator(lambda node, x: x.tanh()),
    "ThresholdedRelu": Operator(
        lambda node, x: torch.where(x > node.number("alpha", 1.0), x, torch.zeros_like(x)), "alpha"
    ),
    "com.microsoft.BiasGelu": Operator(_gelu_of_sum("none")),
    "com.microsoft.FastGelu": Operator(_gelu_of_sum("tanh")),
    "com.microsoft.Gelu": Operator(_gelu_of_sum("none")),
    "com.microsoft.QuickGelu": Operator(lambda node, x: x * (node.number("alpha", 1.702) * x).sigmoid(), "alpha"),
}
