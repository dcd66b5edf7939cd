"""Robust accuracy of one network after another, on the same validation images, by the same attack."""

from dataclasses import dataclass
from typing import Any

import torch

from compress.attacks import losses
from compress.attacks.accuracy import largest_margin
from compress.attacks.pgd import batch_random_start
from compress.config import QuantizeConfig
from compress.data.dataset import Dataset, first_of_each_class
from compress.data.split import Split
from compress.networks.base import Classifier
from compress.numerics.seeds import generator
from edge.core.proportions import clopper_pearson


@dataclass(frozen=True)
class Verdict:
    """How many of `n` images stood, and the images' mean worst margin: largest wrong logit minus the true one."""

    n: int
    stood: int
    margin: float

    @property
    def robust(self) -> float:
        return self.stood / self.n

    def drop(self, reference: "Verdict") -> float:
        """Percentage points below a reference on the same images."""
        return 100 * (reference.stood - self.stood) / self.n

    def as_dict(self) -> dict[str, Any]:
        low, high = clopper_pearson(self.stood, self.n)
        return {"robust": self.robust, "interval": [low, high], "mean_margin": self.margin}


class Judge:
    """PGD on validation images: `judge(network)`. Nothing is chosen by test images."""

    def __init__(self, dataset: Dataset, config: QuantizeConfig, where: torch.device) -> None:
        validation = Split.of(dataset, "val", where)
        chosen = first_of_each_class(validation.labels.cpu().numpy(), config.sensitivity_images)
        index = torch.from_numpy(chosen).to(where)
        self.split = Split(validation.images[index], validation.labels[index])
        self.config = config

    @property
    def described(self) -> dict[str, Any]:
        """The images and the attack."""
        threat = {"attack": "pgd", "steps": self.config.validate_steps, "eps": self.config.threat.eps}
        return {"split": "val", "n": len(self.split.labels), **threat}

    def __call__(self, model: Classifier) -> Verdict:
        """float32 images → logits; the attack is white-box, through whatever quantizers are on."""
        config, eps, worst = self.config, self.config.threat.radius, []
        for index, (x, y) in enumerate(self.split.batches(config.batch_size)):
            start = batch_random_start(x, eps, generator(config.seed, "evaluate", index))
            with torch.no_grad():
                margins = losses.margin(y)(model(x))
            right = margins < 0  # what is wrong already need not be attacked
            if bool(right.any()):
                steps = config.validate_steps
                _, margins[right] = largest_margin(model, x[right], y[right], start=start[right], eps=eps, steps=steps)
            worst.append(margins)
        margins = torch.cat(worst)
        return Verdict(len(margins), int((margins < 0).sum()), float(margins.mean()))
