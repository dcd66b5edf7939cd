"""Every gradient attack of the protocol against one student, its twin and the artifacts made from them."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compress.artifact import Stage
from compress.attacks import grid, losses
from compress.attacks.losses import ImageLoss
from compress.attacks.pgd import Model, random_start, step_size, strongest
from compress.config import AttackConfig
from compress.data.split import to_float
from compress.models import Classifier
from compress.seeds import generator
from edge.progress import Progress
from edge.runner import MODEL, Runner


@dataclass(frozen=True)
class Subject:
    """A model under attack: a torch network, or an artifact with its runner and its twin for the backward pass."""

    label: str
    role: str  # student, twin or artifact
    stage: Stage
    model: Classifier
    runner: "Runner | None" = None
    twin: "str | None" = None

    def infer(self, images: np.ndarray) -> np.ndarray:
        """uint8 or float32 images (N,C,H,W) → logits (N,K), by the artifact itself where there is one."""
        if self.runner is not None:
            return self.runner.infer(images)
        x = torch.from_numpy(images)
        x = to_float(x) if x.dtype == torch.uint8 else x
        with torch.no_grad():
            return torch.cat([self.model(part) for part in x.split(128)]).numpy()

    def describe(self) -> dict[str, Any]:
        entry: dict[str, Any] = {"label": self.label, "role": self.role, "identity": self.stage.identity}
        if self.runner is not None:
            sha256 = self.stage.manifest["payload"][MODEL]["sha256"]
            return entry | {"file": MODEL, "sha256": sha256, "twin": self.twin}
        return entry


@dataclass(frozen=True)
class Candidates:
    """One attack's images, uint8 (N,C,H,W) on the 8-bit grid, and how they came about."""

    name: str
    kind: str
    source: str
    where: str
    parameters: dict[str, Any]
    images: np.ndarray

    def describe(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "images"}


#: labels (B,) → loss
LossOf = Callable[[Tensor], ImageLoss]


@dataclass(frozen=True)
class _Attack:
    """A model to ascend on, what to ascend, and what decides which iterate is kept."""

    name: str
    kind: str
    source: str
    where: str
    model: Model
    loss: LossOf
    judge: LossOf = losses.margin
    parameters: dict[str, Any] = field(default_factory=dict)


def attack_all(
    subjects: list[Subject], clean: np.ndarray, labels: np.ndarray, config: AttackConfig
) -> list[Candidates]:
    """The candidates of every attack on uint8 `clean` (N,C,H,W): one image an attack, the strongest of its restarts."""
    attacks = list(_attacks(subjects, config))
    batches = -(-len(labels) // config.batch_size)
    with Progress("attack set", len(attacks) * batches) as bar:
        return [_run(attack, clean, labels, config, bar) for attack in attacks]


def _attacks(subjects: list[Subject], config: AttackConfig) -> Iterator[_Attack]:
    student = next(subject for subject in subjects if subject.role == "student")
    here, t = "torch on the workstation", config.temperature
    for subject in subjects:
        at = subject.label
        if subject.runner is not None:
            both = f"forward by {subject.runner.describe()['name']}, backward by torch, on the workstation"
            model = hybrid(subject.runner, subject.model)
            yield _Attack(f"bpda@{at}", "bpda", at, both, model, losses.cross_entropy)
            continue
        yield _Attack(f"pgd-ce@{at}", "white-box", at, here, subject.model, losses.cross_entropy)
        yield _Attack(f"pgd-margin@{at}", "margin", at, here, subject.model, losses.margin)
        cooled = functools.partial(losses.temperature, t=t)
        yield _Attack(
            f"pgd-temperature@{at}", "temperature", at, here, subject.model, cooled, parameters={"temperature": t}
        )
        if subject.role == "twin":
            pair = _both(student.model, subject.model)
            yield _Attack(f"differential@{at}", "differential", at, here, pair, _diverging, _diverged)


def hybrid(runner: Runner, twin: Model) -> Model:
    """BPDA (Athalye et al. 2018): the artifact's logits forward, the twin's gradient backward."""

    def model(x: Tensor) -> Tensor:
        pretended = twin(x)
        real = torch.from_numpy(runner.infer(x.detach().cpu().numpy())).to(x.device)
        return pretended + (real - pretended).detach()

    return model


def _both(student: Model, twin: Model) -> Model:
    """The logits of both side by side, (B, 2K): what the differential attack ascends on."""
    return lambda x: torch.cat([student(x), twin(x)], 1)


def _diverging(y: Tensor) -> ImageLoss:
    """DIVA (Hao et al. 2022): the true class's probability kept on the float student and taken from the twin."""

    def loss(logits: Tensor) -> Tensor:
        student, twin = (part.softmax(1).gather(1, y[:, None])[:, 0] for part in logits.chunk(2, 1))
        return student - twin

    return loss


def _diverged(y: Tensor) -> ImageLoss:
    """Positive where the twin is wrong and the student right."""
    worse = losses.margin(y)

    def judge(logits: Tensor) -> Tensor:
        student, twin = logits.chunk(2, 1)
        return torch.minimum(worse(twin), -worse(student))

    return judge


def _run(attack: _Attack, clean: np.ndarray, labels: np.ndarray, config: AttackConfig, bar: Progress) -> Candidates:
    """One attack on all images, batch by batch."""
    radius = grid.radius(config.threat.eps) / 255  # so that snapping to the grid loses nothing
    step = step_size(config.step_size, radius, config.steps)
    results = []
    pairs = (torch.from_numpy(values).split(config.batch_size) for values in (clean, labels))
    for number, (images, y) in enumerate(zip(*pairs, strict=True)):
        x = to_float(images)
        best, best_value = x.clone(), torch.full((len(x),), -torch.inf)
        for restart in range(config.restarts):
            start = random_start(x, radius, generator(config.seed, attack.name, number, restart))
            found, value = strongest(
                attack.model,
                x,
                attack.loss(y),
                attack.judge(y),
                start=start,
                eps=radius,
                step_size=step,
                steps=config.steps,
            )
            better = value > best_value
            best[better], best_value[better] = found[better], value[better]
        results.append(grid.snap(best, images, config.threat.eps))
        bar.step(1, note=attack.name)
    parameters = {
        **attack.parameters,
        "steps": config.steps,
        "step_size": step,
        "restarts": config.restarts,
        "seed": config.seed,
    }
    return Candidates(attack.name, attack.kind, attack.source, attack.where, parameters, torch.cat(results).numpy())
