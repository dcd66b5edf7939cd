"""The training radius over its warm-up, and what follows it."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from compress.attacks.pgd import robust_accuracy
from compress.config import TeacherConfig, TrainAttack, Training, parse
from compress.data.split import Split
from compress.methods.objective import Search, TrainingBatch
from compress.networks.base import Classifier
from edge.core.errors import CompressError
from tests.compress.short_training import EPS, PgdTraining, few, fresh, rows, same, train


class Measuring(PgdTraining):
    """Adversarial training that measures how far its images lie from the clean ones."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[float, float]] = []

    def parts(self, student: Classifier, batch: TrainingBatch, x_adv: Tensor) -> dict[str, Tensor]:
        self.found.append((batch.progress, float((x_adv - batch.x).abs().max())))
        return super().parts(student, batch, x_adv)


class Still(PgdTraining):
    """The attack sees a loss that rises with every pixel, so that its end is known."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[float, float]] = []

    def search(self, student: Classifier, batch: TrainingBatch) -> Search:
        return Search(lambda x: x.flatten(1), lambda pixels: pixels.sum(1))

    def adversarial(
        self, student: Classifier, batch: TrainingBatch, attack: TrainAttack, *, eps: float, draw: torch.Generator
    ) -> Tensor:
        x_adv = super().adversarial(student, batch, attack, eps=eps, draw=draw)
        self.found.append((eps, float((x_adv - batch.x).max())))
        return x_adv


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_images_lie_within_the_radius_of_that_progress(tmp_path: Path, share: float) -> None:
    objective = Measuring()
    train(tmp_path, fresh(), objective=objective, attack={"steps": 3, "eps_warmup": share})
    assert [progress for progress, _ in objective.found] == pytest.approx([step / 8 for step in range(8)])
    for progress, distance in objective.found:
        assert distance == pytest.approx(min(1.0, progress / share) * EPS, abs=1e-6)


def test_a_step_that_is_derived_follows_the_radius_and_one_that_is_given_stays(tmp_path: Path) -> None:
    """One step from a start within ε: at the end a derived step of 2.5 ε has reached the ball's edge everywhere."""
    derived, given = Still(), Still()
    train(tmp_path / "a", fresh(), objective=derived, attack={"steps": 1, "eps_warmup": 1.0})
    train(tmp_path / "b", fresh(), objective=given, attack={"steps": 1, "eps_warmup": 1.0, "step_size": "0.001"})
    assert [eps for eps, _ in derived.found] == pytest.approx([EPS * step / 8 for step in range(8)])
    assert all(distance == pytest.approx(eps, abs=1e-6) for eps, distance in derived.found)
    assert all(distance <= eps + 1e-6 for eps, distance in given.found)
    assert given.found[-1][0] == derived.found[-1][0]


def test_validation_is_at_the_full_radius(tmp_path: Path) -> None:
    student = fresh()
    found = train(tmp_path, student, epochs=1, attack={"steps": 1, "eps_warmup": 1.0})
    again = robust_accuracy(student, Split.of(few(), "val", torch.device("cpu")), 32, eps=EPS, steps=1, seed=3)
    assert found["validation"]["robust"] == again
    (row,) = rows(tmp_path)
    assert row["validation_robust"] == again


def test_without_a_warm_up_nothing_changes_and_with_one_something_does(tmp_path: Path) -> None:
    students = {}
    for name, attack in (("plain", {}), ("none", {"eps_warmup": 0.0}), ("grown", {"eps_warmup": 0.9})):
        students[name] = fresh()
        train(tmp_path / name, students[name], epochs=1, attack={"steps": 1, **attack})
    states = {name: student.state_dict() for name, student in students.items()}
    assert same(states["plain"], states["none"]) and not same(states["plain"], states["grown"])


@pytest.mark.parametrize("method", ["n-fgsm", "trades"])
def test_other_attacks_begin_at_no_radius_too(tmp_path: Path, method: str) -> None:
    found = train(tmp_path, fresh(), method, epochs=1, attack={"steps": 1, "eps_warmup": 0.5})
    assert found["epochs"] == 1


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_outside_of_0_and_1_is_refused(share: float) -> None:
    with pytest.raises(CompressError, match=r"attack\.eps_warmup: input should be"):
        parse(TeacherConfig, {"data": "digits", "attack": {"eps_warmup": share}}, "test")
    assert Training(attack={"eps_warmup": 1}).attack.eps_warmup == 1.0
