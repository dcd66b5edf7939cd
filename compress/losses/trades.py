"""TRADES: accuracy traded for stable predictions (Zhang et al. 2019, eq. 5)."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from compress.attacks import losses as attack_losses
from compress.losses.kl import kl
from compress.losses.objective import Batch, Objective
from compress.models import Classifier
from compress.options import Trades


class StablePredictions(Objective):
    """CE(S(x), y) + β KL(S(x) ‖ S(x_adv)), x_adv maximising the same divergence from a fixed S(x); β = 6.

    As in the published code, S(x) is in evaluation mode in the attack, and the update follows the gradient through
    both sides of the divergence. Differs from it in the attack's start: uniform in the ball, where the code adds
    1e-3 · N(0, 1). At S(x') = S(x) the divergence is flat, so starting at x itself would never move.
    """

    def __init__(self, options: Trades) -> None:
        super().__init__()
        self.beta = options.beta

    def attack_loss(self, student: Classifier, batch: Batch) -> attack_losses.ImageLoss:
        with torch.no_grad():
            return attack_losses.divergence(student(batch.x))

    def parts(self, student: Classifier, batch: Batch, x_adv: Tensor) -> dict[str, Tensor]:
        """{"clean", and "stability" where it has weight}, nats."""
        logits = student(batch.x)
        parts = {"clean": cross_entropy(logits, batch.y)}
        if self.beta:
            parts["stability"] = self.beta * kl(logits, student(x_adv))
        return parts
