"""Adversarial weight perturbation (Wu et al. 2020): gradients are taken where the weights are worse."""

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from compress.networks.base import Classifier
from compress.numerics import ranks

#: Keeps the direction of a layer without gradient finite; the published code's value.
TINY = 1e-20


@contextlib.contextmanager
def worse(student: Classifier, loss: Callable[[], Tensor], gamma: float) -> Iterator[None]:
    """Inside, each layer's weights w stand at w + γ ‖w‖ g / ‖g‖ with g = ∂loss/∂w: one step up the loss.

    Biases and BatchNorm's weights stay, as in the published code. What happened to the weights inside is kept: leaving
    subtracts the same perturbation. BatchNorm statistics do not see the pass that finds it.
    """
    weights = [weight for weight in student.parameters() if weight.requires_grad and weight.ndim > 1]
    statistics = [(buffer, buffer.clone()) for buffer in student.buffers()]
    gradients = torch.autograd.grad(loss(), weights, allow_unused=True)
    ranks.total([gradient for gradient in gradients if gradient is not None])
    with torch.no_grad():
        for buffer, before in statistics:
            buffer.copy_(before)
        steps = [
            (weight, gamma * weight.norm() / (gradient.norm() + TINY) * gradient)
            for weight, gradient in zip(weights, gradients, strict=True)
            if gradient is not None
        ]
        for weight, step in steps:
            weight.add_(step)
    yield
    with torch.no_grad():
        for weight, step in steps:
            weight.sub_(step)
