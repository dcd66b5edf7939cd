"""What a training method is to the one loop: a loss for the attack, and named parts for the update."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compress.attacks.losses import ImageLoss
from compress.attacks.pgd import pgd, random_start, step_size
from compress.config import TrainAttack
from compress.models import Classifier, Features


@dataclass(frozen=True)
class Batch:
    """Clean images `x` (B,C,H,W) in [0, 1], labels `y` (B,), and the teacher on `x` without gradients, if any."""

    x: Tensor
    y: Tensor
    teacher: "Features | None" = None

    @property
    def guide(self) -> Features:
        """The teacher's output, for methods that need one."""
        assert self.teacher is not None, "a method that needs a teacher was run without one"
        return self.teacher


class Objective(nn.Module):
    """One method. It is a module only because some learn parameters of their own; those are never shipped."""

    attacks: bool = True

    def attack_loss(self, student: Classifier, batch: Batch) -> ImageLoss:
        """What the inner maximisation ascends on this batch; the student is in evaluation mode."""
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
        return pgd(
            student,
            batch.x,
            self.attack_loss(student, batch),
            start=random_start(batch.x, eps, draw),
            eps=eps,
            step_size=step_size(attack.step_size, eps, attack.steps),
            steps=attack.steps,
        )

    def parts(self, student: Classifier, batch: Batch, x_adv: Tensor) -> dict[str, Tensor]:
        """The outer loss as named scalars; their sum is minimised. Means over the batch throughout."""
        raise NotImplementedError
