"""Training without a teacher: plain and adversarial cross-entropy."""

from torch import Tensor
from torch.nn.functional import cross_entropy

from compress.attacks import losses as attack_losses
from compress.losses.objective import Batch, Objective
from compress.models import Classifier
from compress.options import PgdAt


class Normal(Objective):
    """Cross-entropy on clean images; nothing is attacked. The reference that shows what robustness costs and gives."""

    attacks = False

    def attack_loss(self, student: Classifier, batch: Batch) -> attack_losses.ImageLoss:
        return attack_losses.cross_entropy(batch.y)

    def parts(self, student: Classifier, batch: Batch, x_adv: Tensor) -> dict[str, Tensor]:
        """{"clean": mean cross-entropy on x}; x_adv is not used."""
        return {"clean": cross_entropy(student(batch.x), batch.y)}


class AdversarialTraining(Objective):
    """PGD-AT (Madry et al. 2018, eq. 2.1): cross-entropy on the images that maximise it.

    (1 − w) CE(S(x_adv), y) + w CE(S(x), y), w = `clean_weight`, 0 in the paper.
    """

    def __init__(self, options: PgdAt) -> None:
        super().__init__()
        self.clean_weight = options.clean_weight

    def attack_loss(self, student: Classifier, batch: Batch) -> attack_losses.ImageLoss:
        return attack_losses.cross_entropy(batch.y)

    def parts(self, student: Classifier, batch: Batch, x_adv: Tensor) -> dict[str, Tensor]:
        """{"adversarial": …, and "clean" where it has weight}, nats."""
        parts = {"adversarial": (1 - self.clean_weight) * cross_entropy(student(x_adv), batch.y)}
        if self.clean_weight:
            parts["clean"] = self.clean_weight * cross_entropy(student(batch.x), batch.y)
        return parts
