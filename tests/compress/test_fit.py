"""The loop: resumable to the bit, selected on validation, and loud about what it cannot do."""

import copy
import io
from pathlib import Path
from typing import Any

import pytest
import torch

from compress import data, training
from compress.attacks.pgd import accuracy, robust_accuracy
from compress.data.split import Split, crop_flip
from compress.methods.normal import CleanTraining, Normal
from compress.methods.objective import TrainingBatch
from compress.networks.base import Classifier
from compress.numerics.seeds import generator
from edge.core import artifact
from edge.core.errors import CheckFailed, CompressError
from tests.compress import short_training
from tests.compress.short_training import fresh, rows, same

LONGER: dict[str, Any] = {
    "epochs": 3,
    "batch_size": 128,
    "attack": {"steps": 2},
    "validate_steps": 2,
    "test_steps": 2,
}


class Stopped(Exception):
    """Stands for a kill between two epochs."""


def train(folder: Path, student: Classifier, method: str = "pgd-at", **changes: Any) -> dict[str, Any]:
    """On all digits."""
    return short_training.train(folder, student, method, dataset=data.load_dataset("digits"), **{**LONGER, **changes})


@pytest.mark.parametrize(("method", "augment"), [("pgd-at", "auto"), ("n-fgsm", "idbh-weak")])
def test_resuming_after_a_stop_at_any_epoch_ends_in_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, augment: str
) -> None:
    whole = fresh()
    train(tmp_path / "whole", whole, method, augment=augment)
    for stop in (1, 2):
        folder = tmp_path / f"stopped-{stop}"
        write = artifact.write_atomic

        def write_then_stop(path: Path, content: object, stop: int = stop, write: object = write) -> None:
            write(path, content)
            if path.name == training.CHECKPOINT and torch.load(path, weights_only=True)["state"]["epoch"] == stop:
                raise Stopped

        with monkeypatch.context() as patch:
            patch.setattr(artifact, "write_atomic", write_then_stop)
            with pytest.raises(Stopped):
                train(folder, fresh(), method, augment=augment)
        resumed = fresh(seed=99)  # whatever the fresh process starts from, the checkpoint decides
        train(folder, resumed, method, augment=augment)
        assert same(whole.state_dict(), resumed.state_dict())
        assert [row["epoch"] for row in rows(folder)] == [1, 2, 3]


def test_a_network_that_draws_resumes_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful() -> Classifier:
        student = fresh()
        student.linear = torch.nn.Sequential(torch.nn.Dropout(0.4), student.linear)
        return student

    whole, resumed, write = forgetful(), forgetful(), artifact.write_atomic
    short_training.train(tmp_path / "whole", whole)

    def write_then_stop(path: Path, content: object) -> None:
        write(path, content)
        if path.name == training.CHECKPOINT:
            raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(artifact, "write_atomic", write_then_stop)
        with pytest.raises(Stopped):
            short_training.train(tmp_path / "stopped", forgetful())
    torch.manual_seed(99)  # another process has drawn something else
    short_training.train(tmp_path / "stopped", resumed)
    assert same(whole.state_dict(), resumed.state_dict())


def test_training_learns_and_the_chosen_epoch_is_the_best_on_validation(tmp_path: Path) -> None:
    student = fresh()
    found = train(tmp_path / "w", student, epochs=5, attack={"steps": 1})
    seen = rows(tmp_path / "w")
    best = max(seen, key=lambda row: (row["validation_robust"], row["epoch"]))
    assert found["best_epoch"] == best["epoch"]
    assert found["validation"]["robust"] == best["validation_robust"]
    split = Split.of(data.load_dataset("digits"), "val", torch.device("cpu"))
    assert accuracy(student, split, 128) == found["validation"]["clean"] > 0.5
    again = robust_accuracy(student, split, 128, eps=0.15, steps=2, seed=3)
    assert again == found["validation"]["robust"] > 0.2
    assert seen[-1]["lr"] < 0.05 * 0.2 and seen[-1]["adversarial"] < seen[0]["adversarial"]


def test_a_method_that_does_not_attack_is_selected_by_clean_accuracy(tmp_path: Path) -> None:
    found = train(tmp_path / "w", fresh(), "normal")
    seen = rows(tmp_path / "w")
    assert found["validation"]["clean"] == max(row["validation_clean"] for row in seen)
    assert "clean" in seen[0] and "adversarial" not in seen[0]
    assert "validation_robust" not in seen[0] and "robust" not in found["validation"]  # not measured, so not 0


def test_the_seed_decides_the_result(tmp_path: Path) -> None:
    results = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        student = fresh(seed)
        train(tmp_path / name, student, epochs=1)
        results.append(student.state_dict()["conv1.weight"])
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


def test_training_images_are_varied_as_the_config_says_and_digits_are_not_by_themselves(tmp_path: Path) -> None:
    weights = {}
    for augment in ("auto", "none", "crop-flip", "cropshift"):
        student = fresh()
        train(tmp_path / augment, student, "normal", epochs=1, augment=augment)
        weights[augment] = student.state_dict()["conv1.weight"]
    assert torch.equal(weights["auto"], weights["none"])
    assert not torch.equal(weights["none"], weights["crop-flip"])
    assert not torch.equal(weights["crop-flip"], weights["cropshift"])


class Seeing(CleanTraining):
    """Plain training that keeps what it is given."""

    def __init__(self) -> None:
        super().__init__(Normal())
        self.seen: list[torch.Tensor] = []

    def parts(self, student: Classifier, batch: TrainingBatch, x_adv: torch.Tensor) -> dict[str, torch.Tensor]:
        self.seen.append(batch.x)
        return super().parts(student, batch, x_adv)


def test_the_varied_batch_is_what_objective_and_teacher_see_anew_each_epoch(tmp_path: Path) -> None:
    objective = Seeing()
    train(tmp_path, fresh(), objective=objective, epochs=2, augment="crop-flip")
    split = Split.of(data.load_dataset("digits"), "train", torch.device("cpu"))
    steps = len(split.labels) // 128
    assert len(objective.seen) == 2 * steps
    for epoch in (0, 1):
        order = torch.randperm(len(split.labels), generator=generator(3, "order", epoch))
        clean = split.images[order[:128]].float() / 255
        assert torch.equal(objective.seen[epoch * steps], crop_flip(clean, generator(3, "augment", epoch, 0)))


@pytest.mark.parametrize("method", ["trades", "n-fgsm"])
def test_methods_without_a_teacher_make_digits_robust(
    tmp_path: Path, method: str, capsys: pytest.CaptureFixture
) -> None:
    found = train(tmp_path / "w", fresh(), method, epochs=4, batch_size=64, attack={"steps": 1})
    assert found["validation"]["clean"] > 0.7 and found["validation"]["robust"] > 0.4
    assert "catastrophic_overfitting" not in found and found["epochs"] == 4  # a healthy run is let alone
    assert "overfitting" not in capsys.readouterr().err


#: A step that attacks nothing, as that of a network that has overfitted to it, unmakes a robust network.
COLLAPSE = {
    "options": {"noise": 0.0, "alpha": 1e-3},
    "eps": 0.22,
    "epochs": 8,
    "batch_size": 64,
    "lr": 0.2,
    "warmup": 0.6,
}


@pytest.fixture(scope="module")
def robust(tmp_path_factory: pytest.TempPathFactory) -> dict:
    student = fresh()
    train(tmp_path_factory.mktemp("robust"), student, eps=0.22, epochs=3, batch_size=64, lr=0.1, attack={"steps": 1})
    return copy.deepcopy(student.state_dict())


def started(robust: dict) -> Classifier:
    student = fresh()
    student.load_state_dict(robust)
    return student


def test_catastrophic_overfitting_stops_training_at_the_best_epoch(
    tmp_path: Path, robust: dict, capsys: pytest.CaptureFixture
) -> None:
    student = started(robust)
    found = train(tmp_path / "w", student, "n-fgsm", **COLLAPSE)
    seen = rows(tmp_path / "w")
    collapse, last = found["catastrophic_overfitting"], seen[-1]
    assert collapse == {"epoch": len(seen), "robust": last["validation_robust"], "best": max_robust(seen)}
    assert len(seen) == found["epochs"] < 8
    assert collapse["robust"] < collapse["best"] / 2 and collapse["best"] > 0.15
    assert last["validation_clean"] >= found["validation"]["clean"]
    assert found["validation"]["robust"] == max_robust(seen) == seen[found["best_epoch"] - 1]["validation_robust"]
    split = Split.of(data.load_dataset("digits"), "val", torch.device("cpu"))
    assert robust_accuracy(student, split, 64, eps=0.22, steps=2, seed=3) == max_robust(seen)  # that epoch's weights
    lines = [line for line in capsys.readouterr().err.splitlines() if "catastrophic overfitting" in line]
    assert len(lines) == 1 and f"in epoch {len(seen)}" in lines[0] and f"kept epoch {found['best_epoch']}" in lines[0]

    path = tmp_path / "w" / training.METRICS
    before, again = path.read_text(), fresh(seed=99)
    assert train(tmp_path / "w", again, "n-fgsm", **COLLAPSE) == found  # killed after its last checkpoint: still over
    assert path.read_text() == before
    assert same(student.state_dict(), again.state_dict())


def test_the_same_fall_is_no_ones_business_where_more_steps_are_taken(tmp_path: Path, robust: dict) -> None:
    changes = {**COLLAPSE, "options": {"beta": 0.0}, "attack": {"steps": 2}, "epochs": 5}
    found = train(tmp_path / "w", started(robust), "trades", **changes)
    assert "catastrophic_overfitting" not in found and found["epochs"] == 5
    assert found["validation_last"]["robust"] < found["validation"]["robust"] / 2


def max_robust(rows: "list[dict]") -> float:
    return max(row["validation_robust"] for row in rows)


@pytest.mark.parametrize(
    ("sequence", "at"),
    [
        ([(0.35, 0.24), (0.50, 0.33), (0.62, 0.38), (0.80, 0.02)], 3),  # as Wong et al. see it on CIFAR-10
        ([(0.50, 0.33), (0.49, 0.10), (0.55, 0.05)], 2),  # in the midst of it clean accuracy may dip
        ([(0.50, 0.33), (0.60, 0.17), (0.61, 0.30)], None),  # shaky, but more than half
        ([(0.50, 0.33), (0.30, 0.10), (0.45, 0.20)], None),  # a step too large: both fall
        ([(0.10, 0.10), (0.45, 0.04), (0.60, 0.25)], None),  # one class for all images at first: no robustness to lose
        ([(0.30, 0.20), (0.50, 0.30), (0.60, 0.35)], None),
    ],
)
def test_collapse_is_told_from_other_falls(sequence: "list[tuple[float, float]]", at: "int | None") -> None:
    best: dict[str, float] = {}
    when = None
    for epoch, (clean, robust) in enumerate(sequence):
        found = {"clean": clean, "robust": robust}
        if when is None and training.collapsed(best, found, chance=0.1):
            when = epoch
        if not best or robust >= best["robust"]:
            best = found
    assert when == at


def test_a_loss_that_is_not_finite_stops_and_names_term_epoch_and_step(tmp_path: Path) -> None:
    student = fresh()
    with torch.no_grad():
        student.linear.bias[0] = float("nan")
    with pytest.raises(CheckFailed, match=r"epoch 1, step 1: adversarial is not finite"):
        train(tmp_path / "w", student)
    assert not (tmp_path / "w" / training.CHECKPOINT).exists()


def test_a_batch_larger_than_the_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CompressError, match="batch_size 4096 is larger than the 1149 training images"):
        train(tmp_path / "w", fresh(), batch_size=4096)


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    train(tmp_path / "w", fresh(), epochs=1)
    path = tmp_path / "w" / training.CHECKPOINT
    whole, other = path.read_bytes(), io.BytesIO()
    content = torch.load(path, weights_only=True)
    torch.save({**content, "student": {"conv1.weight": torch.zeros(1)}}, other)  # of another version
    for damaged in (whole[:1000], other.getvalue()):
        path.write_bytes(damaged)
        with pytest.raises(CompressError, match=r"unreadable checkpoint .*; delete it and run again") as caught:
            train(tmp_path / "w", fresh(), epochs=1)
        assert "\n" not in str(caught.value)


def test_the_rate_rises_then_falls_to_nothing() -> None:
    rates = [training.rate(step, 100, 0.1) for step in range(100)]
    assert rates[0] < 0.2 and max(rates) == pytest.approx(1.0, abs=0.1) and rates[-1] < 0.001
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1]) and rates[top:] == sorted(rates[top:], reverse=True)
    assert training.rate(0, 10, 0.0) == 1.0


def test_robust_accuracy_of_a_linear_model_is_the_analytic_one() -> None:
    """Two classes, logits ±w·x: an image stands exactly when its margin exceeds ε‖Δw‖₁ (away from the range's ends)."""
    g = torch.Generator().manual_seed(0)
    weight = torch.randn(2, 64, generator=g)
    images = torch.randint(60, 190, (200, 1, 8, 8), generator=g).to(torch.uint8)
    model = lambda x: x.flatten(1) @ weight.T  # noqa: E731
    logits = model(images.float() / 255)
    split = Split(images, logits.argmax(1))
    margin = (logits[:, 0] - logits[:, 1]).abs()
    for eps in (0.005, 0.01, 0.02):
        standing = float((margin > eps * (weight[0] - weight[1]).abs().sum()).float().mean())
        assert robust_accuracy(model, split, 64, eps=eps, steps=20, seed=0) == pytest.approx(standing)
        assert 0 < standing < 1


def test_streams_differ_by_every_part_of_their_key() -> None:
    draws = [
        torch.rand(4, generator=generator(*key)).tolist()
        for key in ((0, "a", 1), (0, "a", 2), (0, "b", 1), (1, "a", 1))
    ]
    assert len({tuple(draw) for draw in draws}) == 4
