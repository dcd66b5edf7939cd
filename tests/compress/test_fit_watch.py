"""What the loop looks out for: broken losses, lost robustness, too little memory; and what it reports of both ends."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from compress import training
from compress.config import Training
from compress.methods import registry
from compress.methods.normal import CleanTraining, Normal
from compress.methods.objective import Objective, TrainingBatch
from compress.networks.base import Classifier
from compress.training import watch
from compress.training.checkpoint import TrainingState
from compress.training.loop import _Loop
from edge.core.artifact import Work
from edge.core.errors import CheckFailed, CompressError
from tests.compress.short_training import BRIEF, EPS, PgdTraining, few, fresh, same, train

FINE, NAN, INF = torch.tensor(1.0), torch.tensor(float("nan")), torch.tensor(float("inf"))


def test_the_earliest_broken_step_is_named_however_late_one_looks() -> None:
    finite = watch.Finite()
    finite.note(0, {"kl": FINE, "cov": FINE}, FINE)
    finite.check(0, 0.1)
    finite.note(1, {"kl": FINE, "cov": INF}, INF)
    finite.note(2, {"kl": NAN, "cov": NAN}, NAN)
    finite.note(3, {"kl": FINE, "cov": FINE}, FINE)
    with pytest.raises(CheckFailed, match=r"^epoch 5, step 2: cov is not finite; lower lr \(now 0\.1\)$"):
        finite.check(4, 0.1)


def test_parts_that_are_finite_may_add_up_to_what_is_not() -> None:
    finite = watch.Finite()
    finite.note(0, {"kl": FINE, "cov": FINE}, INF)
    with pytest.raises(CheckFailed, match="step 1: the sum is not finite"):
        finite.check(0, 0.1)
    watch.Finite().check(0, 0.1)  # nothing was noted


def outcomes(n: int, lost: int, gained: int) -> tuple[Tensor, Tensor]:
    """Images of two epochs, half of them standing in both, so many lost and gained from one to the other."""
    best, now = torch.zeros(2, n, dtype=torch.bool)
    best[: n // 2], now[: n // 2] = True, True
    best[n // 2 : n // 2 + lost], now[n // 2 + lost : n // 2 + lost + gained] = True, True
    return best, now


@pytest.mark.parametrize(
    ("n", "lost", "gained", "epochs", "expected"),
    [
        (95, 14, 4, 10, False),  # ten points of a small split, as chance has them in a run of that length
        (95, 40, 0, 10, True),
        (1000, 100, 50, 10, True),
        (1000, 100, 50, 1000, False),  # the best of a thousand epochs is a lucky one
        (1000, 60, 50, 10, False),
        (100_000, 1500, 0, 10, False),  # beyond chance, and too little to matter
        (100, 0, 40, 1, False),
    ],
)
def test_fallen_means_more_than_the_margin_and_than_chance(
    n: int, lost: int, gained: int, epochs: int, expected: bool
) -> None:
    assert watch.fallen(*outcomes(n, lost, gained), epochs) is expected


def test_noise_on_a_small_validation_split_is_no_robust_overfitting() -> None:
    """Runs in which nothing changes but which of 95 images happen to stand."""
    draw = torch.Generator().manual_seed(0)
    alarms = 0
    for _ in range(40):
        stands_by = torch.rand(95, generator=draw)
        best, below = torch.zeros(95, dtype=torch.bool), 0
        for epoch in range(1, 61):
            now = torch.rand(95, generator=draw) < stands_by
            best = now if int(now.sum()) >= int(best.sum()) else best
            below = below + 1 if watch.fallen(best, now, epoch) else 0
            alarms += below == watch.OVERFIT_EPOCHS
    assert alarms <= 1


class Spoiled(PgdTraining):
    """Adversarial training that trains on shuffled labels once it has trained for a while."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.left = after

    def parts(self, student: Classifier, batch: TrainingBatch, x_adv: Tensor) -> dict[str, Tensor]:
        self.left -= 1
        if self.left < 0:
            batch = replace(batch, y=(batch.y + 1) % 10)
        return super().parts(student, batch, x_adv)


def test_robustness_that_is_lost_for_epochs_is_told_once_and_both_ends_are_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    student, seen = fresh(), []
    config = Training(**{**BRIEF, "epochs": 9, "lr": 0.1, "warmup": 0.05})
    measure = lambda: seen.append({k: v.clone() for k, v in student.state_dict().items()}) or {"clean": len(seen)}  # noqa: E731
    data, objective = few(512, 128), Spoiled(after=5 * 16)
    work = Work(tmp_path)
    found = training.fit(
        student, objective, None, data, config, eps=0.05, seed=3, work=work, label="test", measure=measure
    )
    rows = [json.loads(line) for line in (tmp_path / training.METRICS).read_text().splitlines()]
    assert found["best_epoch"] < 7 and rows[-1]["validation_robust"] < found["validation"]["robust"] / 2
    over = found["robust_overfitting"]
    assert over == {"since": found["best_epoch"] + 1, "best": found["validation"]["robust"]}
    lines = [line for line in capsys.readouterr().err.splitlines() if "robust overfitting" in line]
    assert len(lines) == 1 and f"in epoch {found['best_epoch']}" in lines[0]
    assert found["test_last"] == {"clean": 1} and found["test"] == {"clean": 2}  # first the last, then what is kept
    assert same(seen[1], student.state_dict()) and not same(seen[0], seen[1])
    last = torch.load(tmp_path / training.CHECKPOINT, weights_only=True)["student"]
    assert same(seen[0], last)


def loop_of(folder: Path, objective: Objective, n: int) -> _Loop:
    """A loop at its beginning, with so many validation images."""
    loop = _Loop(
        fresh(),
        objective,
        (None, None),
        few(64, n),
        Training(**BRIEF),
        eps=EPS,
        seed=3,
        work=Work(folder),
        label="test",
        extra=None,
    )
    loop.state = TrainingState()
    return loop


def test_robustness_that_comes_back_withdraws_what_was_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loop = loop_of(tmp_path, PgdTraining(), 100)
    images = torch.arange(100)
    for loop.state.epoch, standing in enumerate((50, 60, 20, 20, 20, 20, 58, 20, 61)):
        loop._select({"clean": 0.9, "robust": standing / 100}, images < standing)
    told = [line for line in capsys.readouterr().err.splitlines() if "robust overfitting" in line]
    assert len(told) == 2 and "3 epochs in a row below the best by more than chance" in told[0]
    assert "withdrawn, epoch 7 is not below the best" in told[1] and "60.0% in epoch 2" in told[1]
    assert loop.state.below == 0 and loop.state.best_epoch == 9


@pytest.mark.parametrize(("n", "ended"), [(50, False), (100, True)])
def test_a_collapse_that_ends_training_needs_evidence_too(tmp_path: Path, n: int, ended: bool) -> None:
    """12 standing images of 50 that become 5, and 24 of 100 that become 10."""
    loop, images = loop_of(tmp_path, PgdTraining(), n), torch.arange(n)
    for loop.state.epoch, share in enumerate((0.24, 0.1)):
        loop._select({"clean": 0.5, "robust": share}, images < share * n)
    assert bool(loop.state.collapse) == ended


def test_where_the_last_epoch_is_the_best_it_is_measured_once(tmp_path: Path) -> None:
    student, seen = fresh(), []
    config = Training(**{**BRIEF, "epochs": 1})
    objective = registry.build_objective("normal", {}, student, None, [])
    measure = lambda: seen.append(1) or {"clean": 0.5}  # noqa: E731
    found = training.fit(
        student, objective, None, few(), config, eps=EPS, seed=3, work=Work(tmp_path), label="t", measure=measure
    )
    assert found["test"] == found["test_last"] == {"clean": 0.5} and len(seen) == 1
    assert "robust_overfitting" not in found


class Greedy(CleanTraining):
    """Needs more memory than there is for more than so many images."""

    def __init__(self, fits: int) -> None:
        super().__init__(Normal())
        self.fits = fits

    def parts(self, student: Classifier, batch: TrainingBatch, x_adv: Tensor) -> dict[str, Tensor]:
        torch.empty(2**50 if len(batch.x) > self.fits else 1)
        return super().parts(student, batch, x_adv)


@pytest.mark.parametrize(("fits", "said"), [(9, "8 images fit, set batch_size 8"), (1, "not even 2 images fit")])
def test_a_batch_beyond_memory_is_answered_with_one_that_fits(tmp_path: Path, fits: int, said: str) -> None:
    with pytest.raises(CompressError, match=f"^batch_size 32: out of memory.*{said}") as caught:
        train(tmp_path, fresh(), objective=Greedy(fits))
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_other_faults_are_not_taken_for_memory() -> None:
    assert watch.exhausted(torch.OutOfMemoryError("CUDA out of memory"))
    assert not watch.exhausted(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes"):
        watch.largest(lambda size: torch.zeros(2, 3) @ torch.zeros(2, 3) or "shapes", 8)


def test_gradients_are_clipped_to_the_norm(tmp_path: Path) -> None:
    results = {}
    for name, clip in (("none", None), ("loose", 1e6), ("tight", 1e-6)):
        student = fresh()
        train(tmp_path / name, student, "normal", clip=clip, weight_decay=0.0, epochs=1)
        results[name] = student.state_dict()["conv1.weight"]
    start = fresh().state_dict()["conv1.weight"]
    torch.testing.assert_close(results["loose"], results["none"])
    assert float((results["tight"] - start).norm()) < 1e-5 < float((results["none"] - start).norm())


def test_rows_tell_the_speed(tmp_path: Path) -> None:
    train(tmp_path, fresh(), "normal", epochs=1)
    (row,) = [json.loads(line) for line in (tmp_path / training.METRICS).read_text().splitlines()]
    assert row["images_per_s"] > 0 and 128 / row["images_per_s"] <= row["seconds"] + 0.01


def test_without_tensorboard_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    train(tmp_path, fresh(), "normal", epochs=1, tensorboard=True)
    lines = [line for line in capsys.readouterr().err.splitlines() if "tensorboard" in line]
    assert len(lines) == 1 and "pip install 'robust-compress[tensorboard]'" in lines[0]
    assert not list(tmp_path.glob("events*"))


def test_the_metrics_as_tensorboard_events(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    student, work = fresh(), Work(tmp_path)
    objective, config = (
        registry.build_objective("normal", {}, student, None, []),
        Training(**{**BRIEF, "tensorboard": True}),
    )
    training.fit(student, objective, None, few(), config, eps=EPS, seed=3, work=work, label="test")
    rows = [json.loads(line) for line in (tmp_path / training.METRICS).read_text().splitlines()]
    events = accumulator.EventAccumulator(str(tmp_path)).Reload()
    points = [(point.step, point.value) for point in events.Scalars("validation_clean")]
    assert points == [(row["epoch"], pytest.approx(row["validation_clean"])) for row in rows]
    assert any(name.startswith("events.out.tfevents.") for name in work.records)
