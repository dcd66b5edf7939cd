"""Averaged weights: what is validated, selected and shipped in place of the last ones."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from compress.networks.base import Classifier
from compress.networks.distributed import sharded


class Average:
    """`ema`: an exponential average over steps; `swa`: the mean of the weights at the ends of epochs; `none`: nothing.

    Both average buffers as they do weights (what is no float is taken as it is). For swa BatchNorm's statistics are
    then found anew, since those of averaged weights are not the average of statistics (Izmailov et al. 2018).
    """

    def __init__(self, kind: str, decay: float, student: Classifier) -> None:
        self.kind, self.decay, self.count = kind, decay, 0
        self.weights: dict[str, Tensor] = copied(student) if kind == "ema" else {}

    def after_step(self, student: Classifier) -> None:
        """ema: the past weighs min(decay, (1 + t) / (10 + t)) at step t, so that the start is soon forgotten."""
        if self.kind == "ema":
            self._take(student, 1 - min(self.decay, (1 + self.count) / (10 + self.count)))

    def after_epoch(self, student: Classifier, images: Callable[[], Iterable[Tensor]]) -> None:
        """swa: one more epoch in the mean; `images` gives the batches that BatchNorm's statistics are found on."""
        if self.kind != "swa":
            return
        if self.weights:
            self._take(student, 1 / (self.count + 1))
        else:
            self.weights, self.count = copied(student), 1
        with self.worn(student):
            statistics_anew(student, images)
            self.weights = copied(student)

    @contextlib.contextmanager
    def worn(self, student: Classifier) -> Iterator[None]:
        """Inside, the student carries the averaged weights, once there are any."""
        if not self.weights:
            yield
            return
        own = copied(student)
        student.load_state_dict(self.weights)
        try:
            yield
        finally:
            student.load_state_dict(own)

    def state_dict(self) -> dict[str, Any]:
        return {"weights": self.weights, "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.weights, self.count = state["weights"], state["count"]

    def _take(self, student: Classifier, weight: float) -> None:
        for name, value in student.state_dict().items():
            if value.is_floating_point():
                self.weights[name].lerp_(value, weight)
            else:
                self.weights[name].copy_(value)
        self.count += 1


def copied(student: Classifier) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in student.state_dict().items()}


def statistics_anew(student: Classifier, images: Callable[[], Iterable[Tensor]]) -> None:
    """BatchNorm's running mean and variance as the plain means over these batches; nothing where there is none."""
    norms = [module for module in student.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the cumulative mean
    whole = sharded(student)
    whole.train()
    with torch.no_grad():
        for x in images():
            whole(x)
    student.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
