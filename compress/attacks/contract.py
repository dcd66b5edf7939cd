"""What every attack of the ensemble takes and gives back, and what attacks of several runs share."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from compress.attacks import ball, losses
from edge.attacks.search import uniform

#: images (B,C,H,W) in [0, 1] → logits (B,K), differentiable
Model = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Task:
    """One batch to attack: images `x` (B,C,H,W) in [0, 1] with labels `y` (B,) int64, at most `eps` away in `norm`."""

    model: Model
    x: Tensor
    y: Tensor
    ids: np.ndarray  # (B,) int64: each image's own number, which names its random stream
    eps: float
    norm: str  # "linf" or "l2"
    seed: int

    def of(self, index: Tensor) -> "Task":
        """The same task for the images at `index` (M,) int64 alone."""
        return replace(self, x=self.x[index], y=self.y[index], ids=self.ids[index.cpu().numpy()])


@runtime_checkable
class EnsembleAttack(Protocol):
    """A frozen dataclass whose fields are the hyperparameters. It leaves no trace on the model.

    One that does not work in every norm says so by a class attribute `norms`.
    """

    @property
    def name(self) -> str: ...

    def parameters(self) -> dict[str, Any]:
        """What a report lists."""
        ...

    def run(self, task: Task) -> Tensor:
        """Each image's strongest candidate (B,C,H,W), inside the ball and [0, 1], in the dtype of `task.x`.

        What the model gets wrong without any attack comes back as it is.
        """
        ...


class Strongest:
    """Each image's candidate of largest verdict over several runs; a run gets only images that no run before it broke.

    strongest = Strongest(task)
    while (part := strongest.standing()) is not None: strongest.take(*run(part))
    """

    def __init__(self, task: Task) -> None:
        self.task, self.images = task, task.x.clone()
        self.verdict = losses.verdict(task.y)(logits_of(task.model, task.x))

    def standing(self) -> "Task | None":
        """The task of the images that are still right; None where none is."""
        self._index = (self.verdict <= 0).nonzero()[:, 0]
        return self.task.of(self._index) if len(self._index) else None

    def take(self, images: Tensor, verdict: Tensor) -> None:
        """Candidates (M,C,H,W) for the task that `standing` gave last, and their verdicts (M,), > 0 where wrong."""
        index, better = self._index, verdict > self.verdict[self._index]
        self.images[index] = torch.where(ball.column(better), images, self.images[index])
        self.verdict[index] = torch.where(better, verdict, self.verdict[index])


def logits_of(model: Model, x: Tensor) -> Tensor:
    """The model's logits (B,K) without a graph."""
    with torch.no_grad():
        return model(x)


def wrong_classes(logits: Tensor, y: Tensor, count: int) -> Tensor:
    """The wrong classes in falling order of their logits: the `count` first of each image (B, ≤ count) int64."""
    wrong = logits.scatter(1, y[:, None], -torch.inf)
    return wrong.topk(min(count, logits.shape[1] - 1), 1).indices


def stream(seed: int, name: str) -> int:
    """The seed of one attack's draws: two attacks of one run share none."""
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8], "little")


def draw(task: Task, name: str, steps: "int | range", count: int) -> Tensor:
    """Uniform numbers in [0, 1) for each image at one step (B,count), or at each of many (B,steps,count).

    float64 on the task's device, drawn on the CPU: they depend on (seed, name, image, step) and on nothing else.
    """
    many = steps if isinstance(steps, range) else range(steps, steps + 1)
    ids, each = np.repeat(task.ids, len(many)), np.tile(np.array(many), len(task.ids))
    values = torch.from_numpy(uniform(stream(task.seed, name), ids, each, count)).to(task.x.device)
    return values.view(len(task.ids), len(many), count) if isinstance(steps, range) else values


def image_random_start(task: Task, name: str, step: int) -> Tensor:
    """On the ball's surface in a random direction (uniform in L∞'s cube, Gaussian in L2), clipped to [0, 1].

    A stream for each image, so no image's start depends on its batch: the attacks of the ensemble.
    `pgd.batch_random_start` draws for the batch as a whole.
    """
    values = draw(task, name, step, task.x[0].numel())
    noise = 2 * values - 1 if task.norm == "linf" else torch.special.ndtri(values + 2.0**-54)
    noise = noise.to(task.x.dtype).view_as(task.x)
    return ball.project(task.x + task.eps * ball.unit(noise, task.norm), task.x, task.eps, task.norm)
