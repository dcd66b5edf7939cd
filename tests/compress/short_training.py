"""Training on a few digits, for tests of the loop: an epoch is a fraction of a second."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from compress import data, networks, training
from compress.config import Training
from compress.data.dataset import Dataset
from compress.data.extra import ExtraImages
from compress.methods import registry
from compress.methods.objective import Objective, StatelessObjective
from compress.methods.pgd_at import PgdAt, pgd_at
from compress.methods.scores import from_labels
from compress.networks.base import Classifier
from edge.core.artifact import Work

EPS = 0.15
BRIEF = {
    "precision": "float32",
    "epochs": 2,
    "batch_size": 32,
    "lr": 0.05,
    "attack": {"steps": 1},
    "validate_steps": 1,
    "test_steps": 1,
}


def few(train: int = 128, val: int = 64) -> Dataset:
    """Digits with fewer of them: the real split, cut short."""
    digits = data.load_dataset("digits")
    return replace(
        digits, splits={**digits.splits, "train": digits.splits["train"][:train], "val": digits.splits["val"][:val]}
    )


def fresh(seed: int = 0, name: str = "resnet8") -> Classifier:
    torch.manual_seed(seed)
    return networks.build_network(name, channels=1, classes=10, size=(8, 8))


def train(
    folder: Path,
    student: Classifier,
    method: str = "pgd-at",
    *,
    options: "dict[str, Any] | None" = None,
    eps: float = EPS,
    objective: "Objective | None" = None,
    teacher: "Classifier | None" = None,
    dataset: "Dataset | None" = None,
    extra: "ExtraImages | None" = None,
    **changes: Any,
) -> dict[str, Any]:
    """Train in `folder` by a method, or by an objective as it is; `changes` of the configuration."""
    folder.mkdir(exist_ok=True)
    config = Training(**{**BRIEF, **changes})
    dataset = few() if dataset is None else dataset
    objective = registry.build_objective(method, options or {}, student, teacher) if objective is None else objective
    work = Work(folder)
    return training.fit(
        student, objective, teacher, dataset, config, eps=eps, seed=3, work=work, label="test", extra=extra
    )


def rows(folder: Path) -> list[dict[str, Any]]:
    """The metrics of every epoch."""
    return [json.loads(line) for line in (folder / training.METRICS).read_text().splitlines()]


class PgdTraining(StatelessObjective):
    """Adversarial training as an object to derive from."""

    def __init__(self) -> None:
        super().__init__(lambda views: pgd_at(views, PgdAt()), from_labels)


def same(a: "dict[str, torch.Tensor]", b: "dict[str, torch.Tensor]") -> bool:
    """Whether two states agree in every bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
