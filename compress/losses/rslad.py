"""RSLAD: robust soft labels in attack and update (Zi et al. 2021, eq. 5–7)."""

from torch import Tensor

from compress.attacks import losses as attack_losses
from compress.losses.kl import kl
from compress.losses.objective import Batch, Objective
from compress.models import Classifier
from compress.options import Rslad


class RobustSoftLabels(Objective):
    """w KL(T(x) ‖ S(x_adv)) + (1 − w) KL(T(x) ‖ S(x)), x_adv maximising KL(T(x) ‖ S(x')); w = 5/6.

    Differs from the published code in the reduction (mean over the batch, not over batch and classes) and in the
    attack's start (uniform in the ball, where the code adds 1e-3 · N(0, 1)).
    """

    def __init__(self, options: Rslad) -> None:
        super().__init__()
        self.weight = options.adversarial_weight

    def attack_loss(self, student: Classifier, batch: Batch) -> attack_losses.ImageLoss:
        return attack_losses.divergence(batch.guide.logits)

    def parts(self, student: Classifier, batch: Batch, x_adv: Tensor) -> dict[str, Tensor]:
        """{"kl_adversarial", "kl_clean"}, nats."""
        target = batch.guide.logits
        return {
            "kl_adversarial": self.weight * kl(target, student(x_adv)),
            "kl_clean": (1 - self.weight) * kl(target, student(batch.x)),
        }
