"""The gradient step that every attack takes, and projected gradient ascent by it (Madry et al. 2018).

And how many images a model keeps right: clean, and under one such ascent.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from compress.attacks import ball, losses
from compress.attacks.contract import Model
from compress.attacks.losses import ImageLoss
from compress.data.dataset import Dataset
from compress.data.split import Split
from compress.networks.base import Classifier
from compress.numerics.seeds import generator


@dataclass(frozen=True)
class Slope:
    """What one look at a batch of candidates shows; no part of it has a graph."""

    loss: Tensor  # (B,)
    verdict: Tensor  # (B,), of the loss itself where no other was asked for
    gradient: Tensor  # (B,C,H,W), of the summed loss; zero where it was not asked for


def gradient_at(
    model: Model,
    x_adv: Tensor,
    loss: ImageLoss,
    judge: "ImageLoss | None" = None,
    *,
    passes: int = 1,
    backward: bool = True,
) -> Slope:
    """`loss` and `judge` of the model's logits at `x_adv` (B,C,H,W) and the loss's gradient, the mean of `passes`.

    The gradient is by the images alone: weights, statistics and `.grad` fields of the model stay as they are.
    """
    mean: tuple[Tensor, ...] = ()
    for _ in range(passes):
        with torch.set_grad_enabled(backward):
            leaf = x_adv.detach().requires_grad_(backward)
            logits = model(leaf)
            value = loss(logits)
            gradient = torch.autograd.grad(value.sum(), leaf)[0] if backward else torch.zeros_like(x_adv)
        verdict = value if judge is None else judge(logits.detach())
        look: tuple[Tensor, ...] = (value.detach(), verdict.detach(), gradient)
        if passes > 1:
            look = tuple(part / passes for part in look)
        mean = tuple(a + b for a, b in zip(mean, look, strict=True)) if mean else look
    return Slope(*mean)


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
        x_adv = gradient_step(x_adv, gradient_at(model, x_adv, loss).gradient, step_size, x=x, eps=eps)
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
        slope = gradient_at(model, x_adv, loss, judge, backward=step < steps)  # nothing steps from the last one
        better = slope.verdict > best_value
        best = torch.where(ball.column(better), x_adv, best)
        best_value = torch.where(better, slope.verdict, best_value)
        if step < steps:
            x_adv = gradient_step(x_adv, slope.gradient, step_size, x=x, eps=eps, norm=norm)
    return best, best_value


def step_size(configured: "str | None", eps: float, steps: int) -> float:
    """The configured step, or 2.5 ε / steps: enough to cross the ball from anywhere in it."""
    return float(Fraction(configured)) if configured is not None else 2.5 * eps / steps


# ----------------------------------------------------------------------------------------------- accuracy


def accuracy(model: Model, split: Split, batch_size: int) -> float:
    """Share of images classified right."""
    with torch.no_grad():
        right = sum(int((model(x).argmax(1) == y).sum()) for x, y in split.batches(batch_size))
    return right / len(split.labels)


def robust_accuracy(model: Model, split: Split, batch_size: int, *, eps: float, steps: int, seed: int) -> float:
    """Share of images still right at every iterate of one PGD run on cross-entropy, step 2.5 ε / steps."""
    stands = standing(model, split, batch_size, eps=eps, steps=steps, seed=seed)
    return int(stands.sum()) / len(stands)


def standing(model: Model, split: Split, batch_size: int, *, eps: float, steps: int, seed: int) -> Tensor:
    """Which images these are, (N,)."""
    stands = []
    for index, (x, y) in enumerate(split.batches(batch_size)):
        start = batch_random_start(x, eps, generator(seed, "evaluate", index))
        with torch.no_grad():
            right = losses.verdict(y)(model(x)) < 0
        x, y, start = x[right], y[right], start[right]  # what is wrong already need not be attacked
        if len(y):
            _, worst = largest_margin(model, x, y, start=start, eps=eps, steps=steps)
            right[right.clone()] = worst < 0
        stands.append(right)
    return torch.cat(stands)


def largest_margin(
    model: Model, x: Tensor, y: Tensor, *, start: Tensor, eps: float, steps: int
) -> tuple[Tensor, Tensor]:
    """PGD on cross-entropy, step 2.5 ε / steps: of all iterates the one of largest `losses.verdict`, and that value.

    (B,C,H,W), (B,): > 0 where the prediction is wrong, else < 0.
    """
    return strongest_iterate(
        model,
        x,
        losses.cross_entropy(y),
        losses.verdict(y),
        start=start,
        eps=eps,
        step_size=step_size(None, eps, steps),
        steps=steps,
    )


def on_test_split(model: Classifier, data: Dataset, *, eps: str, steps: int, batch_size: int) -> dict[str, Any]:
    """Clean and PGD accuracy on the test split, for the manifest; nothing is chosen by it. `eps` as written, 8/255."""
    split = Split.of(data, "test", next(model.parameters()).device)
    return {
        "n": len(split.labels),
        "clean": accuracy(model, split, batch_size),
        "robust": robust_accuracy(model, split, batch_size, eps=float(Fraction(eps)), steps=steps, seed=0),
        "attack": "pgd",
        "steps": steps,
        "eps": eps,
    }
