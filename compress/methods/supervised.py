"""Training without a teacher: plain and adversarial cross-entropy."""

from torch import Tensor
from torch.nn import functional

from compress.methods.batch import Batch, Views
from compress.methods.objective import Objective, Search, Terms
from compress.methods.options import Normal, PgdAt
from compress.methods.searches import from_labels
from compress.networks import Classifier


def cross_entropy(logits: Tensor, y: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of each image, (B,), nats; `smoothing` of the target is spread over all classes."""
    return functional.cross_entropy(logits, y, reduction="none", label_smoothing=smoothing)


class CleanTraining(Objective):
    """Cross-entropy on clean images; nothing is attacked. The reference that shows what robustness costs and gives."""

    attacks = False

    def __init__(self, options: Normal) -> None:
        super().__init__()
        self.smoothing = options.label_smoothing

    def search(self, student: Classifier, batch: Batch) -> Search:
        return from_labels(student, batch)

    def terms(self, views: Views) -> Terms:
        """{"clean": cross-entropy on x}; x_adv is not used."""
        return {"clean": cross_entropy(views.clean.logits, views.y, self.smoothing)}


def pgd_at(views: Views, options: PgdAt) -> Terms:
    """PGD-AT (Madry et al. 2018, eq. 2.1): cross-entropy on the images that maximise it, nats.

    (1 − w) CE(S(x_adv), y) + w CE(S(x), y), w = `clean_weight`, 0 in the paper.
    """
    weight, smoothing = options.clean_weight, options.label_smoothing
    terms = {"adversarial": (1 - weight) * cross_entropy(views.adversarial.logits, views.y, smoothing)}
    if weight:
        terms["clean"] = weight * cross_entropy(views.clean.logits, views.y, smoothing)
    return terms
