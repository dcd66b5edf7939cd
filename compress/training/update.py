"""One step of training: images, attack, loss, weights."""

import contextlib
from dataclasses import dataclass, field

import torch
from torch import Tensor

from compress.config import Training
from compress.data.augment import Augmentation
from compress.methods.objective import Objective
from compress.methods.views import TrainingBatch
from compress.networks.base import Classifier
from compress.networks.distributed import exchange_rows, sharded
from compress.numerics import ranks
from compress.numerics.seeds import generator
from compress.training import awp, diagnose
from compress.training.average import Average
from compress.training.diagnose import Diagnosis
from compress.training.passes import Guide, Passes
from compress.training.speed import PLAIN, Arithmetic
from compress.training.supply import Supply
from compress.training.watch import Finite


@dataclass
class Update:
    """What a step needs. `passes` calls `student`, whose weights and mode are changed here."""

    student: Classifier
    passes: Passes
    objective: Objective
    teacher: "Guide | None"
    supply: Supply
    vary: "Augmentation | None"
    optimizer: torch.optim.Optimizer
    average: Average
    finite: Finite
    config: Training
    eps: float
    seed: int
    clean_teacher: "Guide | None" = None
    arithmetic: Arithmetic = PLAIN
    diagnosis: Diagnosis = field(default_factory=lambda: Diagnosis(0))

    def __post_init__(self) -> None:
        self.whole = sharded(self.passes)

    def compute_in(self, arithmetic: Arithmetic) -> None:
        """From now on in that arithmetic."""
        self.arithmetic = arithmetic
        guides = [guide for guide in (self.teacher, self.clean_teacher) if guide is not None]
        for guide in guides:
            guide.forget()
            guide.precision = arithmetic.attack
        if arithmetic == PLAIN:  # weights stay in the order they came in: convolutions follow the images
            return
        for network in (self.student, *guides):
            arithmetic.put(network)

    def images(self, chosen: Tensor) -> Tensor:
        """Training images as they are, float32 (B,C,H,W) in [0, 1]."""
        return self.arithmetic.image(self.supply.images(chosen))

    def batch(self, x: Tensor, chosen: Tensor, key: tuple[int, ...] = (), progress: float = 0.0) -> TrainingBatch:
        """Images with their labels and who may be asked about them."""
        return TrainingBatch(
            x,
            self._labels(x, chosen),
            self.teacher,
            self.clean_teacher,
            temperature=self.objective.teacher_temperature,
            progress=progress,
            index=chosen.to(x.device),
            key=key,
        )

    def radius(self, progress: float) -> float:
        """The attack's radius once that share of the run is done: from 0 up to eps over its warm-up."""
        rise = self.config.attack.eps_warmup
        return self.eps * min(1.0, progress / rise) if rise else self.eps

    def __call__(self, chosen: Tensor, epoch: int, step: int, lr: float, progress: float = 0.0) -> dict[str, Tensor]:
        """One step on the images `chosen` at that learning rate; the parts of its loss, still on the device.

        `progress` is the share of the run that is done.
        """
        x = self.images(chosen)
        if self.vary is not None:
            x = self.arithmetic.image(self.vary(x, generator(self.seed, "augment", epoch, step)))
        batch, x_adv = self.batch(x, chosen, (self.seed, epoch, step), progress), x
        if self.objective.attacks:
            self.student.eval()
            self.passes.precision = self.arithmetic.attack
            start = generator(self.seed, "start", epoch, step)
            x_adv = exchange_rows(
                self.objective.adversarial(self.whole, batch, self.config.attack, eps=self.radius(progress), draw=start)
            )
        self.student.train()
        self.passes.precision = self.arithmetic.update
        with self._perturbed(batch, x_adv, epoch):
            parts = self._parts(batch, x_adv, epoch * self.supply.steps + step)
            loss = total(parts)
            self.finite.note(step, parts, loss)
            self._descend(loss, lr)
        self.objective.after_step()
        self.average.after_step(self.student)
        return {name: part.detach() for name, part in parts.items()}

    def _labels(self, x: Tensor, chosen: Tensor) -> Tensor:
        """The images' labels, (B,); where one came without, the class that the teacher sees in it."""
        known = self.supply.labels(chosen)
        if self.supply.labelled:
            return known
        assert self.teacher is not None, "images without labels were taken without a teacher"
        with torch.no_grad():
            return torch.where(known < 0, self.teacher.forward_features(x).logits.argmax(1), known)

    def _parts(self, batch: TrainingBatch, x_adv: Tensor, step: int) -> dict[str, Tensor]:
        """The parts of the loss, looked at more closely in the steps in which that is wanted."""
        if not self.diagnosis.due(step):
            return self.objective.parts(self.whole, batch, x_adv)
        seen = diagnose.Seen(self.whole, x_adv)
        parts = self.objective.parts(seen, batch, x_adv)
        weights = [weight for weight in self.student.parameters() if weight.requires_grad]
        self.diagnosis.add(diagnose.figures(parts, weights, seen, batch))
        return parts

    def _perturbed(self, batch: TrainingBatch, x_adv: Tensor, epoch: int) -> "contextlib.AbstractContextManager[None]":
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
