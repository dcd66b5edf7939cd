"""The gradient step that every attack takes, and projected gradient ascent by it (Madry et al. 2018)."""

from fractions import Fraction

import torch
from torch import Tensor

from compress.attacks import ball
from compress.attacks.contract import Model, logits_of
from compress.attacks.losses import ImageLoss


def gradient_at(model: Model, x_adv: Tensor, loss: ImageLoss) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (B,K) and loss (B,) at `x_adv` (B,C,H,W), and the gradient (B,C,H,W) of the summed loss; no graph is left.

    It asks for the gradient by the images alone: weights, statistics and `.grad` fields stay as they are.
    """
    with torch.enable_grad():
        leaf = x_adv.detach().requires_grad_()
        logits = model(leaf)
        values = loss(logits)
        (gradient,) = torch.autograd.grad(values.sum(), leaf)
    return logits.detach(), values.detach(), gradient


def gradient_step(
    x_adv: Tensor, gradient: Tensor, size: "float | Tensor", *, x: Tensor, eps: float, norm: str = "linf"
) -> Tensor:
    """One step of length `size` (a number, or one an image (B,1,1,1)) up the gradient, brought back into the ball."""
    return ball.project(x_adv + size * ball.uphill(gradient, norm), x, eps, norm)


def batch_random_start(x: Tensor, eps: float, generator: torch.Generator) -> Tensor:
    """Uniform in the L∞ ball around x, inside [0, 1], one stream for the whole batch: training and its validation.

    Drawn on the CPU, so alike on every device. `contract.image_random_start` draws for each image on its own.
    """
    noise = torch.rand(x.shape, generator=generator) * (2 * eps) - eps
    return (x + noise.to(x.device)).clamp(0, 1)


def pgd(model: Model, x: Tensor, loss: ImageLoss, *, start: Tensor, eps: float, step_size: float, steps: int) -> Tensor:
    """The last iterate: sign steps up `loss`, each projected to ‖x_adv − x‖∞ ≤ eps and [0, 1]. (B,C,H,W)."""
    x_adv = start.detach()
    for _ in range(steps):
        _, _, gradient = gradient_at(model, x_adv, loss)
        x_adv = gradient_step(x_adv, gradient, step_size, x=x, eps=eps)
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
    norm: str = "linf",
) -> tuple[Tensor, Tensor]:
    """Of all iterates of PGD the one with the largest `judge`, image by image, and that value. (B,C,H,W), (B,)."""
    x_adv = best = start.detach()
    best_value = x.new_full((len(x),), -torch.inf)
    for step in range(steps + 1):
        if step < steps:
            logits, _, gradient = gradient_at(model, x_adv, loss)
        else:  # nothing steps from the last one
            logits = logits_of(model, x_adv)
        value = judge(logits)
        better = value > best_value
        best, best_value = torch.where(ball.column(better), x_adv, best), torch.where(better, value, best_value)
        if step < steps:
            x_adv = gradient_step(x_adv, gradient, step_size, x=x, eps=eps, norm=norm)
    return best, best_value


def step_size(configured: "str | None", eps: float, steps: int) -> float:
    """The configured step, or 2.5 ε / steps: enough to cross the ball from anywhere in it."""
    return float(Fraction(configured)) if configured is not None else 2.5 * eps / steps
