"""N-FGSM: adversarial training for the price of one gradient step (de Jorge et al. 2022, algorithm 1)."""

import torch
from torch import Tensor

from compress.attacks.pgd import batch_random_start, pgd
from compress.config import TrainAttack
from compress.methods.batch import Batch, Views
from compress.methods.objective import Objective, Search, Terms
from compress.methods.options import NFgsm
from compress.methods.searches import from_labels
from compress.methods.supervised import cross_entropy
from compress.networks import Classifier


class NoisySingleStep(Objective):
    """CE(S(x_adv), y), x_adv = clip(x' + α ε sign ∇ CE(S(x'), y)), x' = clip(x + U(−k ε, k ε)); k = 2, α = 1.

    Clipped to [0, 1] only: x_adv may lie (k + α) ε from x, since projecting it back brings the overfitting about. The
    section's `attack`, its steps and step size, is not used. Differs from the published code in that the gradient is
    taken with the student in evaluation mode, as everywhere here.
    """

    def __init__(self, options: NFgsm) -> None:
        super().__init__()
        self.noise, self.alpha, self.smoothing = options.noise, options.alpha, options.label_smoothing

    def single_step(self, attack: TrainAttack) -> bool:
        return True

    def search(self, student: Classifier, batch: Batch) -> Search:
        return from_labels(student, batch)

    def adversarial(
        self, student: Classifier, batch: Batch, attack: TrainAttack, *, eps: float, draw: torch.Generator
    ) -> Tensor:
        """x_adv (B,C,H,W) of the class's docstring: one step of PGD in the ball of radius 1, which is all of [0, 1]."""
        start = batch_random_start(batch.x, self.noise * eps, draw)
        found = self.search(student, batch)
        return pgd(found.model, batch.x, found.loss, start=start, eps=1.0, step_size=self.alpha * eps, steps=1)

    def terms(self, views: Views) -> Terms:
        """{"adversarial"}, nats."""
        return {"adversarial": cross_entropy(views.adversarial.logits, views.y, self.smoothing)}
