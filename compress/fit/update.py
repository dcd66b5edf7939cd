"""One step of training: images, attack, loss, weights."""

import contextlib
from dataclasses import dataclass

import torch
from torch import Tensor

from compress import ranks
from compress.config import Training
from compress.data.augment import Augmentation
from compress.data.split import Split, to_float
from compress.fit import awp
from compress.fit.average import Average
from compress.fit.passes import Guide, Passes
from compress.fit.speed import PLAIN, Arithmetic
from compress.fit.watch import Finite
from compress.losses.objective import Batch, Objective
from compress.models import Classifier
from compress.models.sharded import exchange, sharded
from compress.seeds import generator


@dataclass
class Update:
    """What a step needs. `passes` calls `student`, whose weights and mode are changed here."""

    student: Classifier
    passes: Passes
    objective: Objective
    teacher: "Guide | None"
    train: Split
    vary: "Augmentation | None"
    optimizer: torch.optim.Optimizer
    average: Average
    finite: Finite
    config: Training
    eps: float
    seed: int
    arithmetic: Arithmetic = PLAIN

    def __post_init__(self) -> None:
        self.whole = sharded(self.passes)

    def compute_in(self, arithmetic: Arithmetic) -> None:
        """From now on in that arithmetic."""
        self.arithmetic = arithmetic
        if self.teacher is not None:
            self.teacher.forget()
            self.teacher.precision = arithmetic.attack
        if arithmetic == PLAIN:  # weights stay in the order they came in: convolutions follow the images
            return
        for network in (self.student, self.teacher):
            if network is not None:
                arithmetic.put(network)

    @property
    def steps(self) -> int:
        """Steps of an epoch; images that fill no batch wait for the next epoch's order."""
        return len(self.train.labels) // self.config.batch_size

    def order(self, epoch: int) -> Tensor:
        """The epoch's order of the training images, (N,), on their device."""
        labels = self.train.labels
        return torch.randperm(len(labels), generator=generator(self.seed, "order", epoch)).to(labels.device)

    def images(self, chosen: Tensor) -> Tensor:
        """Training images as they are, float32 (B,C,H,W) in [0, 1]."""
        return self.arithmetic.image(to_float(self.train.images[chosen]))

    def batch(self, x: Tensor, chosen: Tensor) -> Batch:
        """Images with their labels and what the teacher says of them."""
        if self.teacher is None:
            return Batch(x, self.train.labels[chosen])
        with torch.no_grad():
            return Batch(x, self.train.labels[chosen], self.teacher.forward_features(x))

    def __call__(self, chosen: Tensor, epoch: int, step: int, lr: float) -> dict[str, Tensor]:
        """One step on the images `chosen` at that learning rate; the parts of its loss, still on the device."""
        x = self.images(chosen)
        if self.vary is not None:
            x = self.arithmetic.image(self.vary(x, generator(self.seed, "augment", epoch, step)))
        batch, x_adv = self.batch(x, chosen), x
        if self.objective.attacks:
            self.student.eval()
            self.passes.precision = self.arithmetic.attack
            start = generator(self.seed, "start", epoch, step)
            x_adv = exchange(
                self.objective.adversarial(self.whole, batch, self.config.attack, eps=self.eps, draw=start)
            )
        self.student.train()
        self.passes.precision = self.arithmetic.update
        with self._perturbed(batch, x_adv, epoch):
            parts = self.objective.parts(self.whole, batch, x_adv)
            loss = total(parts)
            self.finite.note(step, parts, loss)
            self._descend(loss, lr)
        self.average.after_step(self.student)
        return {name: part.detach() for name, part in parts.items()}

    def _perturbed(self, batch: Batch, x_adv: Tensor, epoch: int) -> "contextlib.AbstractContextManager[None]":
        given = self.config.awp
        if given is None or epoch < given.warmup:
            return contextlib.nullcontext()
        return awp.worse(self.student, lambda: total(self.objective.parts(self.whole, batch, x_adv)), given.gamma)

    def _descend(self, loss: Tensor, lr: float) -> None:
        self.optimizer.zero_grad()
        loss.backward()
        ranks.reduce_gradients(self.student.parameters(), self.objective.parameters())
        if self.config.clip is not None:
            weights = [weight for group in self.optimizer.param_groups for weight in group["params"]]
            torch.nn.utils.clip_grad_norm_(weights, self.config.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()


def total(parts: dict[str, Tensor]) -> Tensor:
    """The loss that the named parts add up to, ()."""
    return torch.stack(list(parts.values())).sum()
