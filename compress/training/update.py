"""One step of training: which images, the attack, the loss, the weights."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from compress.config import Quantize, Training
from compress.data.extra import ExtraImages
from compress.data.split import Augmentation, Split, to_float
from compress.methods.objective import Objective, TrainingBatch
from compress.networks.base import Classifier
from compress.networks.distributed import exchange_rows, sharded
from compress.numerics import ranks
from compress.numerics.seeds import generator
from compress.training import diagnose
from compress.training.average import Average
from compress.training.diagnose import Diagnosis
from compress.training.passes import PLAIN, Arithmetic, Guide, Passes
from compress.training.watch import Finite


class Supply:
    """Batches of `size` images by (seed, epoch, step) alone, so alike on every rank and after every stop.

    Without extra images an epoch is one random order of the training split; what fills no batch waits for the next.
    With them each batch has round(fraction · size) extra images behind those of the training split, either drawn
    without replacement from an endless row of random orders of its own. An epoch has as many steps as without.
    """

    def __init__(self, train: Split, size: int, seed: int, extra: "ExtraImages | None" = None) -> None:
        self.train, self.size, self.seed, self.extra = train, size, seed, extra
        self.added = 0 if extra is None else round(extra.fraction * size)
        self.where = train.images.device
        self._orders: dict[str, tuple[int, Tensor]] = {}

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return len(self.train.labels) // self.size

    def chosen(self, epoch: int, step: int) -> Tensor:
        """The numbers of the step's images, (B,), on the CPU; extra ones count on behind the training split."""
        count = len(self.train.labels)
        if self.extra is None:
            return self._order("order", epoch, count)[step * self.size : (step + 1) * self.size]
        at = epoch * self.steps + step
        own = self._next("order", at, self.size - self.added, count)
        return torch.cat([own, count + self._next("extra", at, self.added, len(self.extra.images))])

    def images(self, chosen: Tensor) -> Tensor:
        """Those images as they are, float32 (B,C,H,W) in [0, 1], on the device."""
        if self.extra is None:
            return to_float(self.train.images[chosen.to(self.where)])
        own, further = self._parts(chosen)
        new = self._moved(np.ascontiguousarray(self.extra.images[further]))
        return to_float(torch.cat([self.train.images[own], new]))

    def labels(self, chosen: Tensor) -> Tensor:
        """Their labels, (B,), on the device; −1 where an image came without."""
        if self.extra is None:
            return self.train.labels[chosen.to(self.where)]
        own, further = self._parts(chosen)
        known = self.extra.labels
        new = np.full(len(further), -1) if known is None else known[further]
        return torch.cat([self.train.labels[own], self._moved(new)])

    @property
    def labelled(self) -> bool:
        """Whether every image has a label."""
        return self.extra is None or self.extra.labels is not None

    def _next(self, name: str, at: int, batch: int, count: int) -> Tensor:
        """The `at`-th `batch` of an endless row: random orders of 0…count − 1, one behind the other."""
        begin, end, parts = at * batch, (at + 1) * batch, []
        while begin < end:
            turn, offset = divmod(begin, count)
            parts.append(self._order(name, turn, count)[offset : offset + end - begin])
            begin += len(parts[-1])
        return torch.cat(parts)

    def _order(self, name: str, turn: int, count: int) -> Tensor:
        """The random order of that turn; the last one is kept."""
        known, order = self._orders.get(name, (-1, torch.empty(0)))
        if known != turn:
            order = torch.randperm(count, generator=generator(self.seed, name, turn))
            self._orders[name] = (turn, order)
        return order

    def _parts(self, chosen: Tensor) -> tuple[Tensor, np.ndarray]:
        """Numbers in the training split, on the device, and those in the extra images behind them."""
        count = len(self.train.labels)
        own = int((chosen < count).sum())
        return chosen[:own].to(self.where), (chosen[own:] - count).cpu().numpy()

    def _moved(self, values: np.ndarray) -> Tensor:
        """On the device, without waiting for what it is computing."""
        moved = torch.from_numpy(values)
        return moved.pin_memory().to(self.where, non_blocking=True) if self.where.type == "cuda" else moved


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
        # what a network draws itself, as dropout does, is the step's too, so that a resumed run draws the same
        torch.manual_seed(generator(self.seed, "network", epoch, step, ranks.rank()).initial_seed())
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
        seen = diagnose.FeatureTap(self.whole, x_adv)
        parts = self.objective.parts(seen, batch, x_adv)
        weights = [weight for weight in self.student.parameters() if weight.requires_grad]
        self.diagnosis.add(diagnose.figures(parts, weights, seen, batch))
        return parts

    def _perturbed(self, batch: TrainingBatch, x_adv: Tensor, epoch: int) -> "contextlib.AbstractContextManager[None]":
        perturbation = self.config.awp
        if perturbation is None or epoch < perturbation.warmup:
            return contextlib.nullcontext()
        return worse(self.student, lambda: total(self.objective.parts(self.whole, batch, x_adv)), perturbation.gamma)

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


def build_optimizer(config: Training, student: Classifier, objective: Objective) -> torch.optim.Optimizer:
    """SGD with weight decay on all parameters, as the code of the methods has it, or AdamW with decay on weights alone.

    Parameters are the student's, then the objective's.
    """
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            [*student.parameters(), *objective.parameters()],
            lr=config.lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            nesterov=config.momentum > 0,
        )
    named = [*student.named_parameters(), *objective.state.named_parameters()]
    decayed = [parameter for name, parameter in named if is_weight(name, parameter)]
    others = [parameter for name, parameter in named if not is_weight(name, parameter)]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.lr, betas=(config.momentum, 0.999))


def optimizer_hint(config: Training, student: Classifier) -> str:
    """What to know before a network with LayerNorm is trained by SGD; "" for any other, and for fine-tuning."""
    normed = any(isinstance(module, torch.nn.LayerNorm) for module in student.modules())
    if config.optimizer != "sgd" or not normed or isinstance(config, Quantize):
        return ""
    return f"has LayerNorm and is trained by SGD at lr {config.lr:g}; mostly it needs --set optimizer=adamw"


def is_weight(name: str, parameter: Tensor) -> bool:
    """Whether it is what a layer multiplies by: no bias, norm, scale, class token, position or learned range."""
    return parameter.ndim > 1 and "weight" in name


def total(parts: dict[str, Tensor]) -> Tensor:
    """The loss that the named parts add up to, ()."""
    return torch.stack(list(parts.values())).sum()


#: Keeps the direction of a layer without gradient finite; the published code's value.
TINY = 1e-20


@contextlib.contextmanager
def worse(student: Classifier, loss: Callable[[], Tensor], gamma: float) -> Iterator[None]:
    """Inside, each layer's weights w stand at w + γ ‖w‖ g / ‖g‖ with g = ∂loss/∂w: one step up the loss.

    Biases, norms and embeddings of positions stay, as in the published code. What happened to the weights inside is
    kept: leaving subtracts the same perturbation. BatchNorm statistics do not see the pass that finds it.
    """
    weights = [each for name, each in student.named_parameters() if each.requires_grad and is_weight(name, each)]
    statistics = [(buffer, buffer.clone()) for buffer in student.buffers()]
    gradients = torch.autograd.grad(loss(), weights, allow_unused=True)
    ranks.total([gradient for gradient in gradients if gradient is not None])
    with torch.no_grad():
        for buffer, before in statistics:
            buffer.copy_(before)
        steps = [
            (weight, gamma * weight.norm() / (gradient.norm() + TINY) * gradient)
            for weight, gradient in zip(weights, gradients, strict=True)
            if gradient is not None
        ]
        for weight, step in steps:
            weight.add_(step)
    yield
    with torch.no_grad():
        for weight, step in steps:
            weight.sub_(step)
