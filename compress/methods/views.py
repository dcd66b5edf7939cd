"""What an objective sees of a step: the images, and what student and teacher say of them, each asked once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from compress.methods.lazy import Classifier, Features, Tensor, torch

#: A loss by named terms: (B,) has one value an image, averaged over the batch; () is a statistic of the whole batch.
Terms = dict[str, "Tensor"]


@dataclass(frozen=True)
class TrainingBatch:
    """Clean images `x` (B,C,H,W) in [0, 1] with labels `y` (B,), and who may be asked about them."""

    x: Tensor
    y: Tensor
    teacher: Classifier | None = None
    #: a second teacher, trained on clean images, of the methods that have one
    clean_teacher: Classifier | None = None
    #: the teacher's logits are divided by it (Chen & Lee 2021); the student's never
    temperature: float = 1.0
    #: share of the run that is done, [0, 1)
    progress: float = 0.0
    #: where the images stand in the training split, (B,), for objectives that remember images
    index: Tensor | None = None
    #: (seed, epoch, step), for objectives that draw at random
    key: tuple[int, ...] = ()

    @property
    def guide(self) -> Classifier:
        """The teacher, for methods that need one."""
        assert self.teacher is not None, "a method that needs a teacher was run without one"
        return self.teacher

    def teach(self, x: Tensor) -> Features:
        """The teacher on those images (B,C,H,W), without gradients, its logits over `temperature`."""
        return _without_gradients(self.guide, x, self.temperature)

    def teach_clean(self, x: Tensor) -> Features:
        """The second teacher, likewise."""
        assert self.clean_teacher is not None, "a method that needs a second teacher was run without one"
        return _without_gradients(self.clean_teacher, x, self.temperature)

    @cached_property
    def taught(self) -> Features:
        """The teacher on the clean images."""
        return self.teach(self.x)


class Views:
    """Student (with gradients) and teacher (without) on the batch's clean and adversarial images.

    Every property is one pass, made when it is first read.
    """

    def __init__(self, student: Classifier, batch: TrainingBatch, x_adv: Tensor) -> None:
        self.student, self.batch, self.x_adv = student, batch, x_adv
        self.x, self.y = batch.x, batch.y

    @cached_property
    def clean(self) -> Features:
        """The student on x."""
        return self.student.forward_features(self.x)

    @cached_property
    def adversarial(self) -> Features:
        """The student on x_adv."""
        return self.student.forward_features(self.x_adv)

    @property
    def taught_clean(self) -> Features:
        """The teacher on x."""
        return self.batch.taught

    @cached_property
    def taught_adversarial(self) -> Features:
        """The teacher on x_adv."""
        return self.batch.teach(self.x_adv)


def _without_gradients(teacher: Classifier, x: Tensor, temperature: float) -> Features:
    with torch.no_grad():
        features = teacher.forward_features(x)
    return features if temperature == 1 else replace(features, logits=features.logits / temperature)
