"""Every method by name. To add one: a file with its objective, its options, a row here and in `compress.names`."""

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor

from compress.losses.nfgsm import NoisySingleStep
from compress.losses.objective import Objective
from compress.losses.rslad import RobustSoftLabels
from compress.losses.supervised import AdversarialTraining, Normal
from compress.losses.trades import StablePredictions
from compress.losses.vgap import VarianceGap
from compress.models import Classifier
from compress.options import METHOD_OPTIONS

#: name → (options, student, teacher or None, clean training batches) → objective
METHODS: dict[str, Callable[[Any, Classifier, Any, Iterable[Tensor]], Objective]] = {
    "normal": lambda options, student, teacher, clean: Normal(),
    "pgd-at": lambda options, student, teacher, clean: AdversarialTraining(options),
    "rslad": lambda options, student, teacher, clean: RobustSoftLabels(options),
    "vgap": VarianceGap,
    "trades": lambda options, student, teacher, clean: StablePredictions(options),
    "n-fgsm": lambda options, student, teacher, clean: NoisySingleStep(options),
}


def build(
    method: str, options: dict[str, Any], student: Classifier, teacher: "Classifier | None", clean: Iterable[Tensor]
) -> Objective:
    """The objective of that name; `clean` is read only by methods that prepare themselves on training images."""
    return METHODS[method](METHOD_OPTIONS[method](**options), student, teacher, clean)
