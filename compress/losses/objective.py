"""What a training method is to the one loop: a loss for the attack, and named parts for the update."""

from dataclasses import dataclass

from torch import Tensor, nn

from compress.attacks.losses import ImageLoss
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

    def attack_loss(self, batch: Batch) -> ImageLoss:
        """What the inner maximisation ascends on this batch."""
        raise NotImplementedError

    def parts(self, student: Classifier, batch: Batch, x_adv: Tensor) -> dict[str, Tensor]:
        """The outer loss as named scalars; their sum is minimised. Means over the batch throughout."""
        raise NotImplementedError
