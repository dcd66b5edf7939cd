"""Objectives that are added to another one, their host: further terms, or weights of its images."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from compress.config import TrainAttack
from compress.methods.batch import Batch, Views
from compress.methods.objective import Objective, Search, Terms
from compress.networks import Classifier, Features


class Addition(nn.Module):
    """What a method adds to a host. As of an objective, its state changes in `after_step` alone."""

    #: Whether it reads what the student says of the attack's iterates.
    watches: bool = False

    def terms(self, views: Views) -> Terms:
        """Further terms."""
        return {}

    def weights(self, views: Views) -> "Tensor | None":
        """What the host's terms of each image are multiplied by, (B,); None: nothing."""
        return None

    def watch(self, logits: Tensor, y: Tensor) -> None:
        """The student's logits (B,K) at one iterate of the attack on images of labels y (B,)."""

    def after_step(self) -> None:
        """The weights were updated: keep what the step's statistics were."""


class Combined(Objective):
    """A host and what is added to it: the host's attack, the terms of all."""

    def __init__(self, host: Objective, additions: Sequence[Addition]) -> None:
        super().__init__()
        self.host, self.additions = host, nn.ModuleList(additions)
        self.attacks = host.attacks
        self.teacher_temperature = host.teacher_temperature

    def search(self, student: Classifier, batch: Batch) -> Search:
        return self.host.search(student, batch)

    def single_step(self, attack: TrainAttack) -> bool:
        return self.host.single_step(attack)

    def adversarial(
        self, student: Classifier, batch: Batch, attack: TrainAttack, *, eps: float, draw: torch.Generator
    ) -> Tensor:
        watching = [addition for addition in self._additions() if addition.watches]
        if watching:

            def see(logits: Tensor) -> None:
                for one in watching:
                    one.watch(logits, batch.y)

            student = Watched(student, see)
        return self.host.adversarial(student, batch, attack, eps=eps, draw=draw)

    def terms(self, views: Views) -> Terms:
        """The host's terms, its images weighted, then those of each addition; no name twice."""
        _ = views.clean, views.adversarial  # always in this order, which BatchNorm's statistics depend on
        found = self.host.terms(views)
        for addition in self._additions():
            weights = addition.weights(views)
            if weights is not None:
                found = {name: weights * term if term.ndim else term for name, term in found.items()}
        for addition in self._additions():
            found |= addition.terms(views)
        return found

    def after_step(self) -> None:
        self.host.after_step()
        for addition in self._additions():
            addition.after_step()

    def _additions(self) -> list[Addition]:
        return list(self.additions)  # type: ignore[arg-type]


class Watched(Classifier):
    """A network whose logits are shown to `see` in every pass that gradients are wanted of."""

    def __init__(self, network: Classifier, see: Callable[[Tensor], None]) -> None:
        super().__init__()
        self.network, self.see = network, see
        self.has_features = network.has_features

    def forward_features(self, x: Tensor) -> Features:
        found = self.network.forward_features(x)
        if torch.is_grad_enabled():
            self.see(found.logits.detach())
        return found
