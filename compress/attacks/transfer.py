"""Plain and transferring gradient attacks, and one that sees decisions alone."""

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from compress.attacks import ball, losses
from compress.attacks.contract import Model, Strongest, Task, draw, image_random_start, logits_of, stream
from compress.attacks.losses import ImageLoss
from compress.attacks.pgd import gradient_at, gradient_step, step_size, strongest_iterate
from edge.attacks.rays import rays


@dataclass(frozen=True)
class PGD:
    """Projected gradient ascent on cross-entropy (Madry et al. 2018), step 2.5 ε / steps, in both norms."""

    steps: int = 40
    restarts: int = 1
    _label: ClassVar[str] = "pgd"

    @property
    def name(self) -> str:
        return self._label

    def parameters(self) -> dict[str, Any]:
        return asdict(self)

    def run(self, task: Task) -> Tensor:
        strongest = Strongest(task)
        for restart in range(self.restarts):
            if (part := strongest.standing()) is None:
                break
            iterate = strongest_iterate(
                part.model,
                part.x,
                self._loss(part.y),
                losses.verdict(part.y),
                start=image_random_start(part, self.name, restart),
                eps=part.eps,
                step_size=step_size(None, part.eps, self.steps),
                steps=self.steps,
                norm=part.norm,
            )
            strongest.take(*iterate)
        return strongest.images

    def _loss(self, y: Tensor) -> ImageLoss:
        return losses.cross_entropy(y)


@dataclass(frozen=True)
class MarginPGD(PGD):
    """The same on the margin of Carlini & Wagner (2017), whose gradient no softmax flattens."""

    _label: ClassVar[str] = "pgd-margin"

    def _loss(self, y: Tensor) -> ImageLoss:
        return losses.margin(y)


@dataclass(frozen=True)
class MomentumDiverse:
    """MI-FGSM (Dong et al. 2018) with input diversity (Xie et al. 2019): its last iterate, made to fool other models.

    Every step sees each image, with `probability`, shrunk to `smallest` of its size at least and set on black.
    """

    steps: int = 20
    decay: float = 1.0
    probability: float = 0.5
    smallest: float = 0.9

    @property
    def name(self) -> str:
        return "mi-di"

    def parameters(self) -> dict[str, Any]:
        return asdict(self)

    def run(self, task: Task) -> Tensor:
        strongest = Strongest(task)
        if (part := strongest.standing()) is None:
            return strongest.images
        x_adv, momentum = part.x, torch.zeros_like(part.x)
        loss, tiny = losses.cross_entropy(part.y), torch.finfo(part.x.dtype).tiny
        for step in range(self.steps):
            draws = draw(part, self.name, step, 4).to(part.x.dtype)
            model = partial(_seen, part.model, draws=draws, probability=self.probability, smallest=self.smallest)
            gradient = gradient_at(model, x_adv, loss).gradient
            momentum = self.decay * momentum + gradient / ball.column(gradient.abs().mean((1, 2, 3)).clamp(min=tiny))
            x_adv = gradient_step(x_adv, momentum, part.eps / self.steps, x=part.x, eps=part.eps, norm=part.norm)
        strongest.take(x_adv, losses.verdict(part.y)(logits_of(part.model, x_adv)))
        return strongest.images


@dataclass(frozen=True)
class RayS:
    """RayS (Chen & Gu 2020), L∞: `edge.attacks.rays` with a torch model."""

    norms: ClassVar[tuple[str, ...]] = ("linf",)
    queries: int = 1000

    @property
    def name(self) -> str:
        return "rays"

    def parameters(self) -> dict[str, Any]:
        return asdict(self)

    def run(self, task: Task) -> Tensor:
        searched = rays(
            lambda images: logits_of(task.model, torch.from_numpy(images).to(task.x)).cpu().numpy(),
            task.x.cpu().numpy().astype(np.float32),
            task.y.cpu().numpy(),
            eps=task.eps,
            queries=self.queries,
            seed=stream(task.seed, self.name),
            ids=task.ids,
            batch_size=len(task.ids),
        )
        return ball.project(torch.from_numpy(searched.adversarial).to(task.x), task.x, task.eps, task.norm)


def _seen(model: Model, x: Tensor, *, draws: Tensor, probability: float, smallest: float) -> Tensor:
    """The model's logits of x (B,C,H,W) as diversity shows it; `draws` (B,4): whether, size, places down and across."""
    diverse = draws[:, 0] < probability
    axes = []
    for axis, size in enumerate(x.shape[2:]):
        least = int(smallest * size)
        small = torch.where(diverse, least + (draws[:, 1] * (size - least + 1)).floor(), size)
        axes.append(_shrink(small, draws[:, 2 + axis], size))
    down, across = axes
    return model(down[:, None] @ x @ across[:, None].transpose(2, 3))


def _shrink(small: Tensor, place: Tensor, size: int) -> Tensor:
    """For each image the matrix (size,size) that shrinks an axis to `small` (B,) pixels, linearly, and moves it.

    Products with matrices have one order of summation; a resampling kernel's gradient has none on CUDA.
    """
    first = (place * (size - small + 1)).floor()
    pixel = torch.arange(size, device=small.device, dtype=small.dtype)
    inside = pixel[None] - first[:, None]
    source = ((inside + 0.5) * (size / small)[:, None] - 0.5).clamp(0, size - 1)
    weight = (1 - (source[:, :, None] - pixel).abs()).clamp(min=0)
    return weight * ((inside >= 0) & (inside < small[:, None]))[:, :, None]
