"""PGD on a loss and a model of one's choice, image by image the strongest iterate of all restarts."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compress.attacks import losses
from compress.attacks.losses import ImageLoss
from compress.attacks.pgd import Model, random_start, step_size, strongest
from compress.attacks.rounding import tensors
from compress.config import AttackConfig
from compress.data.split import to_float
from compress.numerics.seeds import generator
from edge.core.progress import Progress

#: labels (B,) → loss
LossOf = Callable[[Tensor], ImageLoss]


@dataclass(frozen=True)
class Ascent:
    """A model to ascend on, what to ascend, and what decides which iterate is kept."""

    name: str
    kind: str
    source: str
    where: str
    model: Model
    loss: LossOf
    judge: LossOf = losses.margin
    more: Mapping[str, Any] = field(default_factory=dict)

    def parameters(self, config: AttackConfig, radius: float) -> dict[str, Any]:
        """What a report lists."""
        return {
            **self.more,
            "steps": config.steps,
            "step_size": step_size(config.step_size, radius, config.steps),
            "restarts": config.restarts,
            "seed": config.seed,
        }

    def run(
        self, clean: np.ndarray, labels: np.ndarray, config: AttackConfig, radius: float, bar: "Progress | None" = None
    ) -> Tensor:
        """Float candidates (N,C,H,W) at most `radius` away from uint8 `clean`, batch by batch."""
        results = []
        for number, (images, y) in enumerate(tensors(clean, labels, batch_size=config.batch_size)):
            results.append(self._batch(to_float(images), y, config, radius, number))
            if bar is not None:
                bar.step(1, note=self.name)
        return torch.cat(results)

    def _batch(self, x: Tensor, y: Tensor, config: AttackConfig, radius: float, number: int) -> Tensor:
        best, best_value = x.clone(), torch.full((len(x),), -torch.inf)
        for restart in range(config.restarts):
            found, value = strongest(
                self.model,
                x,
                self.loss(y),
                self.judge(y),
                start=random_start(x, radius, generator(config.seed, self.name, number, restart)),
                eps=radius,
                step_size=step_size(config.step_size, radius, config.steps),
                steps=config.steps,
            )
            better = value > best_value
            best[better], best_value[better] = found[better], value[better]
        return best


def cooled(temperature: float) -> LossOf:
    return functools.partial(losses.temperature, t=temperature)
