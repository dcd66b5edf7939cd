"""What a training method is to the one loop: images that an attack finds, and named parts of a loss."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compress.attacks.contract import Model
from compress.attacks.losses import ImageLoss
from compress.attacks.pgd import batch_random_start, pgd, step_size
from compress.config import TrainAttack
from compress.methods.batch import Batch, Views
from compress.networks import Classifier

#: A loss by named terms: (B,) has one value an image, averaged over the batch; () is a statistic of the whole batch.
Terms = dict[str, Tensor]


@dataclass(frozen=True)
class Search:
    """What the inner maximisation ascends: `loss`, (B,) of what `model` gives for the images."""

    model: Model
    loss: ImageLoss


class Objective(nn.Module):
    """One method. A module because some learn parameters or keep statistics of their own; those are never shipped.

    Its state changes in `after_step` alone, so that parts can be computed any number of times in a step.
    """

    attacks: bool = True
    #: see `Batch.temperature`
    teacher_temperature: float = 1.0

    def search(self, student: Classifier, batch: Batch) -> Search:
        """What the attack on this batch ascends; the student is in evaluation mode."""
        raise NotImplementedError

    def single_step(self, attack: TrainAttack) -> bool:
        """Whether training images are made by one gradient step, which can overfit catastrophically."""
        return self.attacks and attack.steps == 1

    def adversarial(
        self, student: Classifier, batch: Batch, attack: TrainAttack, *, eps: float, draw: torch.Generator
    ) -> Tensor:
        """The training images x_adv (B,C,H,W), without gradients: PGD from a uniform start in the ball.

        The student is in evaluation mode, so that its statistics stay as they are.
        """
        found = self.search(student, batch)
        return pgd(
            found.model,
            batch.x,
            found.loss,
            start=batch_random_start(batch.x, eps, draw),
            eps=eps,
            step_size=step_size(attack.step_size, eps, attack.steps),
            steps=attack.steps,
        )

    def terms(self, views: Views) -> Terms:
        """The outer loss by named terms; the sum of their means over the batch is minimised."""
        raise NotImplementedError

    def parts(self, student: Classifier, batch: Batch, x_adv: Tensor) -> dict[str, Tensor]:
        """The outer loss as named scalars: means over the batch throughout."""
        return {name: term.mean() for name, term in self.terms(Views(student, batch, x_adv)).items()}

    def after_step(self) -> None:
        """The weights were updated: keep what the step's statistics were."""


class Function(Objective):
    """A method that is one function of what its networks see, and a search."""

    def __init__(
        self,
        terms: Callable[[Views], Terms],
        search: Callable[[Classifier, Batch], Search],
        teacher_temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self._terms, self._search, self.teacher_temperature = terms, search, teacher_temperature

    def search(self, student: Classifier, batch: Batch) -> Search:
        return self._search(student, batch)

    def terms(self, views: Views) -> Terms:
        return self._terms(views)
