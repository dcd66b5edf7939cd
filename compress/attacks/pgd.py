"""Projected gradient ascent in the L∞ ball (Madry et al. 2018)."""

from collections.abc import Callable
from fractions import Fraction

import torch
from torch import Tensor

from compress.attacks.losses import ImageLoss

#: images (B,C,H,W) → logits (B,K), differentiable
Model = Callable[[Tensor], Tensor]


def batch_random_start(x: Tensor, eps: float, generator: torch.Generator) -> Tensor:
    """Uniform in the ball of radius eps around x, inside [0, 1]. Drawn on the CPU, so alike on every device."""
    noise = torch.rand(x.shape, generator=generator) * (2 * eps) - eps
    return (x + noise.to(x.device)).clamp(0, 1)


def pgd(model: Model, x: Tensor, loss: ImageLoss, *, start: Tensor, eps: float, step_size: float, steps: int) -> Tensor:
    """The last iterate: sign steps up `loss`, each projected to ‖x_adv − x‖∞ ≤ eps and [0, 1]. (B,C,H,W)."""
    low, high = (x - eps).clamp(min=0), (x + eps).clamp(max=1)
    x_adv = start.detach()
    for _ in range(steps):
        _, gradient = _ascent(model, x_adv, loss)
        x_adv = _step(x_adv, gradient, step_size, low, high)
    return x_adv


def strongest_iterate(
    model: Model,
    x: Tensor,
    loss: ImageLoss,
    judge: ImageLoss,
    *,
    start: Tensor,
    eps: float,
    step_size: float,
    steps: int,
) -> tuple[Tensor, Tensor]:
    """Of all iterates of `pgd` the one with the largest `judge`, image by image, and that value. (B,C,H,W), (B,)."""
    low, high = (x - eps).clamp(min=0), (x + eps).clamp(max=1)
    x_adv = start.detach()
    best, best_value = x_adv.clone(), torch.full((len(x),), -torch.inf, device=x.device, dtype=x.dtype)
    for step in range(steps + 1):
        last = step == steps
        logits, gradient = (_logits(model, x_adv), None) if last else _ascent(model, x_adv, loss)
        value = judge(logits)
        better = value > best_value
        best[better], best_value[better] = x_adv[better], value[better]
        if gradient is not None:
            x_adv = _step(x_adv, gradient, step_size, low, high)
    return best, best_value


def step_size(given: "str | None", eps: float, steps: int) -> float:
    """The configured step, or 2.5 ε / steps."""
    return float(Fraction(given)) if given is not None else 2.5 * eps / steps


def _ascent(model: Model, x_adv: Tensor, loss: ImageLoss) -> tuple[Tensor, Tensor]:
    """Logits at x_adv and the gradient of the summed loss by the images."""
    with torch.enable_grad():
        leaf = x_adv.detach().requires_grad_()
        logits = model(leaf)
        (gradient,) = torch.autograd.grad(loss(logits).sum(), leaf)
    return logits.detach(), gradient


def _logits(model: Model, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x)


def _step(x_adv: Tensor, gradient: Tensor, step_size: float, low: Tensor, high: Tensor) -> Tensor:
    return torch.clamp(x_adv + step_size * gradient.sign(), low, high)
