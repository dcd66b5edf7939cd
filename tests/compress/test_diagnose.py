"""Diagnosed steps: shares of the gradient and spectra against naive ones, and that they leave no trace."""

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compress.methods import registry
from compress.methods.objective import TrainingBatch
from compress.networks.base import Classifier
from compress.training import Guide, diagnose
from compress.training.diagnose import Diagnosis, FeatureTap, shares, spectrum
from edge.core import interrupt
from tests.compress.short_training import PgdTraining, fresh, rows, same, train
from tests.compress.test_fit_resume import AtStep, asked
from tests.compress.tiny_networks import Tiny, batch, objective


def test_shares_are_those_of_separate_backward_passes() -> None:
    student, teacher = Tiny(3, 1), Tiny(5, 2)
    given, x_adv = batch(teacher)
    method = objective(student, teacher, "vgap", lambda_gap=0.5)
    weights = list(student.parameters())
    found = shares(method.parts(student, given, x_adv), weights)
    norms = {}
    for name in found:
        student.zero_grad()
        method.parts(student, given, x_adv)[name].backward()
        norms[name] = math.sqrt(sum(float((w.grad**2).sum()) for w in weights if w.grad is not None))
    assert len(norms) == 5 and found == pytest.approx(
        {name: norm / sum(norms.values()) for name, norm in norms.items()}
    )
    assert sum(found.values()) == pytest.approx(1)


def test_a_part_that_no_weight_moves_has_no_share() -> None:
    weight, other = nn.Parameter(torch.tensor([3.0])), nn.Parameter(torch.tensor([1.0]))
    parts = {"moved": (2 * weight).sum(), "constant": torch.tensor(7.0), "elsewhere": other.sum()}
    assert shares(parts, [weight]) == {"moved": 1.0, "constant": 0.0, "elsewhere": 0.0}
    assert shares({"constant": torch.tensor(7.0)}, [weight]) == {"constant": 0.0}


def naive(features: np.ndarray) -> dict[str, float]:
    values = np.linalg.eigvalsh(np.cov(features.astype(np.float64), rowvar=False))[::-1].clip(min=0)
    kept = [v for v in values if v > values[0] * max(features.shape) * np.finfo(np.float32).eps]
    p = [v / values.sum() for v in values if v > 0]
    effective = math.exp(-sum(v * math.log(v) for v in p))
    return {"rank": len(kept), "effective_rank": effective, "condition": kept[0] / kept[-1]}


@pytest.mark.parametrize(("rows_", "width", "rank"), [(40, 6, 6), (5, 9, 4), (40, 12, 3)])
def test_a_spectrum_is_the_covariance_matrixs(rows_: int, width: int, rank: int) -> None:
    draw = torch.Generator().manual_seed(0)
    features = torch.randn(rows_, rank, generator=draw, dtype=torch.float64) @ torch.randn(
        rank, width, generator=draw, dtype=torch.float64
    )
    found = spectrum(features)
    assert found == pytest.approx(naive(features.numpy()), rel=1e-6) and found["rank"] == rank
    assert 1 <= found["effective_rank"] <= rank


def test_known_spectra() -> None:
    even = torch.cat([torch.eye(4), -torch.eye(4)])
    assert spectrum(even) == pytest.approx({"rank": 4, "effective_rank": 4, "condition": 1})
    scaled = even * torch.tensor([2.0, 1.0, 1.0, 1.0])
    assert spectrum(scaled)["condition"] == pytest.approx(4) and spectrum(scaled)["effective_rank"] < 4
    assert spectrum(10 * even + 3) == pytest.approx(spectrum(even), rel=1e-5)  # neither scale nor place matter
    assert spectrum(torch.ones(5, 3)) == {"rank": 0, "effective_rank": 0, "condition": 0}


FULL: dict[str, Any] = {"augment": "crop-flip", "average": "ema", "awp": {"gamma": 0.01}}


@pytest.mark.parametrize(("method", "options"), [("rslad", {}), ("gacd", {"negatives": "bank", "bank_negatives": 16})])
def test_weights_are_the_same_bits_with_and_without(tmp_path: Path, method: str, options: dict[str, Any]) -> None:
    found: dict[int, Classifier] = {}
    seen = {}
    for every in (0, 1, 3):
        student, teacher = fresh(), Guide(fresh(5).eval().requires_grad_(False))
        torch.manual_seed(0)
        made = registry.build_objective(method, options, student, teacher, [torch.ones(8, 1, 8, 8)], images=128)
        torch.manual_seed(1)
        train(tmp_path / str(every), student, objective=made, teacher=teacher, diagnose=every, **FULL)
        found[every], seen[every] = student, (torch.random.get_rng_state(), rows(tmp_path / str(every)))
    for every in (1, 3):
        assert same(found[0].state_dict(), found[every].state_dict())
        assert torch.equal(seen[0][0], seen[every][0])
        plain, diagnosed = seen[0][1][-1], seen[every][1][-1]
        extra = set(diagnosed) - set(plain)
        assert {name for name in extra if "teacher" in name} == {
            f"covariance_{name}_teacher" for name in ("rank", "effective_rank", "condition")
        }
        assert {k: diagnosed[k] for k in plain if "second" not in k and k != "images_per_s"} == {
            k: v for k, v in plain.items() if "second" not in k and k != "images_per_s"
        }
        assert sum(diagnosed[name] for name in extra if name.startswith("gradient_share_")) == pytest.approx(1)


class Keeping(PgdTraining):
    """Adversarial training that keeps the student and the images of every step, as its parts are computed."""

    def __init__(self, student: Classifier) -> None:
        super().__init__()
        self.student = student
        self.seen: list[tuple[Classifier, Tensor]] = []

    def parts(self, student: Classifier, batch: TrainingBatch, x_adv: Tensor) -> dict[str, Tensor]:
        self.seen.append((copy.deepcopy(self.student), x_adv))
        return super().parts(student, batch, x_adv)


def test_rows_have_the_means_over_the_diagnosed_steps_of_their_epoch(tmp_path: Path) -> None:
    student = fresh()
    keeping = Keeping(student)
    train(tmp_path, student, objective=keeping, diagnose=3)
    effective = [
        spectrum(each.train().forward_features(x).pooled.detach())["effective_rank"] for each, x in keeping.seen
    ]
    first, second = rows(tmp_path)  # of 4 steps each
    assert first["covariance_effective_rank_student"] == pytest.approx((effective[0] + effective[3]) / 2)
    assert second["covariance_effective_rank_student"] == pytest.approx(effective[6])
    assert first["gradient_share_adversarial"] == 1.0 and not any("teacher" in name for name in first)


def test_an_epoch_without_a_diagnosed_step_has_no_figures(tmp_path: Path) -> None:
    train(tmp_path, fresh(), diagnose=6)
    first, second = rows(tmp_path)
    assert "gradient_share_adversarial" in first and "gradient_share_adversarial" in second  # steps 0 and 6 of 8
    train(tmp_path / "x", fresh(), diagnose=100)
    assert [any(name.startswith("covariance") for name in row) for row in rows(tmp_path / "x")] == [True, False]


def test_means_go_on_where_a_stopped_run_stood(tmp_path: Path) -> None:
    train(tmp_path / "whole", fresh(), diagnose=1)
    with pytest.raises(interrupt.Interrupted):
        train(tmp_path / "stopped", fresh(), objective=AtStep(2, asked()), diagnose=1)
    train(tmp_path / "stopped", fresh(), diagnose=1)
    key = "covariance_condition_student"
    assert [row[key] for row in rows(tmp_path / "whole")] == [row[key] for row in rows(tmp_path / "stopped")]


def test_logits_alone_have_no_spectrum() -> None:
    class Blind(Tiny):
        has_features = False

    student, teacher = Tiny(5, 1), Blind(3, 2)
    given, x_adv = batch(teacher)
    seen = FeatureTap(student, x_adv)
    parts = objective(student, teacher, "rslad").parts(seen, given, x_adv)
    found = diagnose.figures(parts, list(student.parameters()), seen, given)
    assert {name.rpartition("_")[2] for name in found if name.startswith("covariance")} == {"student"}


def test_it_is_due_at_the_first_step_and_never_where_it_is_off() -> None:
    assert [step for step in range(9) if Diagnosis(4).due(step)] == [0, 4, 8]
    assert not any(Diagnosis(0).due(step) for step in range(9))


@pytest.mark.slow
def test_compiled_passes_can_be_diagnosed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch._functorch.config

    monkeypatch.setattr(torch._functorch.config, "donated_buffer", True)  # restored afterwards
    found = train(tmp_path, fresh(), "trades", compile=True, diagnose=2, epochs=1)
    (row,) = rows(tmp_path)
    assert found["compiled"] and row["gradient_share_clean"] + row["gradient_share_stability"] == pytest.approx(1)
