"""MTARD: a robust teacher and a clean one, weighed by how far the student has come with each (Zhao et al. 2022)."""

import torch
from torch import Tensor

from compress.methods.batch import Batch, Views
from compress.methods.kl import divergences
from compress.methods.objective import Objective, Search, Terms
from compress.methods.options import Mtard
from compress.methods.searches import from_labels
from compress.networks import Classifier


class MultiTeacher(Objective):
    """(1 − w) KL(T(x_adv) ‖ S(x_adv)) + w KL(T_nat(x) ‖ S(x)), nats; x_adv maximises CE(S(x'), y).

    T_nat is the teacher trained on clean images. With L̂ = loss / loss of the first batch, in every step

        w ← w − r (w − L̂_nat / (L̂_nat + L̂_adv)),   w = ½ at first, r = 0.025,

    and r falls to a tenth at each of the run's `milestones`, where the published code lowers its learning rate. Differs
    from that code in the reduction (mean over the batch, not over batch and classes) and in the attack's start (uniform
    in the ball, where the code adds 1e-3 · N(0, 1)).
    """

    def __init__(self, options: Mtard) -> None:
        super().__init__()
        self.options, self.teacher_temperature = options, options.teacher_temperature
        self.register_buffer("weight", torch.tensor(0.5))
        self.register_buffer("first", torch.zeros(2))  # losses of the first batch: clean, adversarial; 0: none yet
        self._next: tuple[Tensor, Tensor] | None = None

    def search(self, student: Classifier, batch: Batch) -> Search:
        return from_labels(student, batch)

    def terms(self, views: Views) -> Terms:
        clean = divergences(views.batch.teach_clean(views.x).logits, views.clean.logits)
        adversarial = divergences(views.taught_adversarial.logits, views.adversarial.logits)
        weight = self._weighed(torch.stack([clean.mean(), adversarial.mean()]).detach(), views.batch.progress)
        return {"kl_adversarial": (1 - weight) * adversarial, "kl_clean": weight * clean}

    def after_step(self) -> None:
        if self._next is not None:
            for name, value in zip(("weight", "first"), self._next, strict=True):
                self.get_buffer(name).copy_(value)
        self._next = None

    def _weighed(self, losses: Tensor, progress: float) -> Tensor:
        """w of this step, (), from its `losses` (2,): clean, adversarial."""
        first = self.get_buffer("first")
        first, tiny = torch.where(first > 0, first, losses), torch.finfo(losses.dtype).tiny
        left = losses / first.clamp(min=tiny)
        rate = self.options.rate * 0.1 ** sum(progress >= milestone for milestone in self.options.milestones)
        before = self.get_buffer("weight")
        weight = before - rate * (before - left[0] / left.sum().clamp(min=tiny))
        self._next = weight, first
        return weight
