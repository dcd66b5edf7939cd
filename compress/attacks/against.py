"""Every gradient attack of the protocol against a student, its twin and the artifacts made from them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compress.attacks import grid, losses, white_box
from compress.attacks.ascent import Ascent, LossOf, cooled
from compress.attacks.losses import ImageLoss
from compress.attacks.pgd import Model
from compress.attacks.rounding import settle, tensors
from compress.attacks.subjects import Subject
from compress.config import AttackConfig
from edge.core.progress import Progress


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


@dataclass(frozen=True)
class Found:
    """The candidates of every attack, and by torch model the worst case of its white box before any rounding."""

    candidates: list[Candidates]
    float_figures: dict[str, dict[str, Any]]


def attack_all(
    subjects: list[Subject], clean: np.ndarray, labels: np.ndarray, ids: np.ndarray, config: AttackConfig
) -> Found:
    """Candidates on uint8 `clean` (N,C,H,W), one image an attack; `ids` (N,) name the images' random streams."""
    rows: list[Candidates] = []
    figures = {}
    for subject in subjects:
        if subject.role != "artifact":
            found, figures[subject.label] = white_box.attack(subject, clean, labels, ids, config)
            rows += [_settled(subject, one, clean, labels, config) for one in found]
    radius = grid.radius(config.threat.eps) / 255
    ascents = list(_ascents(subjects, config))
    with Progress("attack set", len(ascents) * -(-len(labels) // config.batch_size)) as bar:
        for ascent in ascents:
            moved = ascent.run(clean, labels, config, radius, bar)
            images = _on_grid(ascent.model, moved, clean, labels, config, ascent.judge)
            parameters = ascent.parameters(config, radius)
            rows.append(Candidates(ascent.name, ascent.kind, ascent.source, ascent.where, parameters, images))
    return Found(rows, figures)


def _settled(
    subject: Subject, one: white_box.Candidate, clean: np.ndarray, labels: np.ndarray, config: AttackConfig
) -> Candidates:
    assert subject.model is not None
    images = _on_grid(subject.model, white_box.tensor(one), clean, labels, config, losses.verdict)
    name = f"{one.name}@{subject.label}"
    return Candidates(name, "white-box", subject.label, white_box.HERE, one.parameters, images)


def _on_grid(
    model: Model, moved: Tensor, clean: np.ndarray, labels: np.ndarray, config: AttackConfig, judge: LossOf
) -> np.ndarray:
    parts = zip(moved.split(config.batch_size), tensors(clean, labels, batch_size=config.batch_size), strict=True)
    return torch.cat([settle(model, part, x, config.threat.eps, judge(y)) for part, (x, y) in parts]).numpy()


def _ascents(subjects: list[Subject], config: AttackConfig) -> Iterator[Ascent]:
    """Margin, temperature and differential attacks on each torch model, hybrid ones on each artifact with a twin."""
    student = next((subject.model for subject in subjects if subject.role == "student"), None)
    for subject in subjects:
        at, model = subject.label, subject.model
        if model is None or subject.unexecuted is not None:
            continue
        if subject.runner is not None:
            both = _where(subject.runner.describe())
            yield Ascent(f"bpda@{at}", "bpda", at, both, subject.hybrid(), losses.cross_entropy)
            yield Ascent(f"bpda-margin@{at}", "bpda", at, both, subject.hybrid(), losses.margin)
            continue
        here, t = white_box.HERE, config.temperature
        yield Ascent(f"pgd-margin@{at}", "margin", at, here, model, losses.margin)
        yield Ascent(f"pgd-temperature@{at}", "temperature", at, here, model, cooled(t), more={"temperature": t})
        if subject.role == "twin" and student is not None:
            pair = _both(student, model)
            yield Ascent(f"differential@{at}", "differential", at, here, pair, _diverging, _diverged)


def _where(described: Mapping[str, Any]) -> str:
    """Of a hybrid attack: which runtime ran forward, and where."""
    if "host" in described:
        return f"forward by {described['name']} on {described['host']}, backward by torch on the workstation"
    return f"forward by {described['name']}, backward by torch, on the workstation"


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
