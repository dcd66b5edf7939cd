"""Plain training: cross-entropy on clean images, the reference that shows what robustness costs and gives."""

from compress.methods.base import Classifier, Method, Supervised
from compress.methods.objective import Objective, Search, Terms, TrainingBatch, Views
from compress.methods.scores import from_labels, smoothed_cross_entropy


class Normal(Supervised):
    """Cross-entropy on clean images."""


class CleanTraining(Objective):
    """Cross-entropy on clean images; nothing is attacked. The reference that shows what robustness costs and gives."""

    attacks = False

    def __init__(self, options: Normal) -> None:
        super().__init__()
        self.smoothing = options.label_smoothing

    def search(self, student: Classifier, batch: TrainingBatch) -> Search:
        return from_labels(student, batch)

    def terms(self, views: Views) -> Terms:
        """{"clean": cross-entropy on x}; x_adv is not used."""
        return {"clean": smoothed_cross_entropy(views.clean.logits, views.y, self.smoothing)}


METHOD = Method("normal", Normal, lambda options, preparation: CleanTraining(options), teachers=0)
