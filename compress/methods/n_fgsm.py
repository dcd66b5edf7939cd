"""N-FGSM: adversarial training for the price of one gradient step (de Jorge et al. 2022, algorithm 1)."""

from __future__ import annotations

from pydantic import Field

from compress.methods.base import Classifier, Method, Positive, Supervised, Tensor, Weight, torch
from compress.methods.objective import InnerAttack, Objective, Search, Terms, TrainingBatch, Views
from compress.methods.scores import from_labels, smoothed_cross_entropy


class NFgsm(Supervised):
    """Single-step adversarial training from noisy images; `attack` is not used."""

    noise: Weight = Field(2.0, description="radius of the uniform noise the step starts from, in multiples of eps")
    alpha: Positive = Field(1.0, description="length of the one step, in multiples of eps; not projected back")


class NoisySingleStep(Objective):
    """CE(S(x_adv), y), x_adv = clip(x' + α ε sign ∇ CE(S(x'), y)), x' = clip(x + U(−k ε, k ε)); k = 2, α = 1.

    Clipped to [0, 1] only: x_adv may lie (k + α) ε from x, since projecting it back brings the overfitting about. The
    section's `attack`, its steps and step size, is not used. Differs from the published code in that the gradient is
    taken with the student in evaluation mode, as everywhere here.
    """

    def __init__(self, options: NFgsm) -> None:
        super().__init__()
        self.noise, self.alpha, self.smoothing = options.noise, options.alpha, options.label_smoothing

    def single_step(self, attack: InnerAttack) -> bool:
        return True

    def search(self, student: Classifier, batch: TrainingBatch) -> Search:
        return from_labels(student, batch)

    def adversarial(
        self, student: Classifier, batch: TrainingBatch, attack: InnerAttack, *, eps: float, draw: torch.Generator
    ) -> Tensor:
        """x_adv (B,C,H,W) of the class's docstring: one step of PGD in the ball of radius 1, which is all of [0, 1]."""
        from compress.attacks.pgd import batch_random_start, pgd

        start = batch_random_start(batch.x, self.noise * eps, draw)
        search = self.search(student, batch)
        return pgd(search.model, batch.x, search.loss, start=start, eps=1.0, step_size=self.alpha * eps, steps=1)

    def terms(self, views: Views) -> Terms:
        """{"adversarial"}, nats."""
        return {"adversarial": smoothed_cross_entropy(views.adversarial.logits, views.y, self.smoothing)}


METHOD = Method("n-fgsm", NFgsm, lambda options, preparation: NoisySingleStep(options), teachers=0)
