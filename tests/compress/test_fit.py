"""The loop: resumable to the bit, selected on validation, and loud about what it cannot do."""

import json
from pathlib import Path

import pytest
import torch

from compress import artifact, data, fit, models
from compress.artifact import Work
from compress.attacks.accuracy import accuracy, robust_accuracy
from compress.config import Training
from compress.data.split import Split
from compress.errors import CheckFailed, CompressError
from compress.losses import methods
from compress.models import Classifier
from compress.seeds import generator

BRIEF = {"epochs": 3, "batch_size": 128, "lr": 0.05, "attack": {"steps": 2}, "validate_steps": 2, "test_steps": 2}


class Stopped(Exception):
    """Stands for a kill between two epochs."""


def fresh(seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    return models.build("resnet8", channels=1, classes=10)


def train(folder: Path, student: Classifier, method: str = "pgd-at", **changes: object) -> dict:
    folder.mkdir(exist_ok=True)
    config = Training(**{**BRIEF, **changes})
    objective = methods.build(method, {}, student, None, [])
    digits = data.load("digits")
    return fit.fit(student, objective, None, digits, config, eps=0.15, seed=3, work=Work(folder), label="test")


def test_resuming_after_a_stop_at_any_epoch_ends_in_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fresh()
    train(tmp_path / "whole", whole)
    for stop in (1, 2):
        folder = tmp_path / f"stopped-{stop}"
        write = artifact.write_atomic

        def write_then_stop(path: Path, content: object, stop: int = stop, write: object = write) -> None:
            write(path, content)
            if path.name == fit.CHECKPOINT and torch.load(path, weights_only=True)["state"]["epoch"] == stop:
                raise Stopped

        with monkeypatch.context() as patch:
            patch.setattr(artifact, "write_atomic", write_then_stop)
            with pytest.raises(Stopped):
                train(folder, fresh())
        resumed = fresh(seed=99)  # whatever the fresh process starts from, the checkpoint decides
        train(folder, resumed)
        assert all(
            torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
        )
        epochs = [json.loads(line)["epoch"] for line in (folder / fit.METRICS).read_text().splitlines()]
        assert epochs == [1, 2, 3]


def test_training_learns_and_the_chosen_epoch_is_the_best_on_validation(tmp_path: Path) -> None:
    student = fresh()
    found = train(tmp_path / "w", student, epochs=5, attack={"steps": 1})
    rows = [json.loads(line) for line in (tmp_path / "w" / fit.METRICS).read_text().splitlines()]
    best = max(rows, key=lambda row: (row["validation_robust"], row["epoch"]))
    assert found["best_epoch"] == best["epoch"]
    assert found["validation"]["robust"] == best["validation_robust"]
    split = Split.of(data.load("digits"), "val", torch.device("cpu"))
    assert accuracy(student, split, 128) == found["validation"]["clean"] > 0.5
    again = robust_accuracy(student, split, 128, eps=0.15, steps=2, seed=3)
    assert again == found["validation"]["robust"] > 0.2
    assert rows[-1]["lr"] < 0.05 * 0.2 and rows[-1]["adversarial"] < rows[0]["adversarial"]


def test_a_method_that_does_not_attack_is_selected_by_clean_accuracy(tmp_path: Path) -> None:
    found = train(tmp_path / "w", fresh(), "normal")
    rows = [json.loads(line) for line in (tmp_path / "w" / fit.METRICS).read_text().splitlines()]
    assert found["validation"]["clean"] == max(row["validation_clean"] for row in rows)
    assert "clean" in rows[0] and "adversarial" not in rows[0]
    assert "validation_robust" not in rows[0] and "robust" not in found["validation"]  # not measured, so not 0


def test_the_seed_decides_the_result(tmp_path: Path) -> None:
    results = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        student = fresh(seed)
        train(tmp_path / name, student, epochs=1)
        results.append(student.state_dict()["conv1.weight"])
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


def test_a_loss_that_is_not_finite_stops_and_names_term_epoch_and_step(tmp_path: Path) -> None:
    student = fresh()
    with torch.no_grad():
        student.linear.bias[0] = float("nan")
    with pytest.raises(CheckFailed, match=r"epoch 1, step 1: adversarial is not finite"):
        train(tmp_path / "w", student)
    assert not (tmp_path / "w" / fit.CHECKPOINT).exists()


def test_a_batch_larger_than_the_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CompressError, match="batch_size 4096 is larger than the 1149 training images"):
        train(tmp_path / "w", fresh(), batch_size=4096)


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    train(tmp_path / "w", fresh(), epochs=1)
    path = tmp_path / "w" / fit.CHECKPOINT
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CompressError, match="unreadable checkpoint"):
        train(tmp_path / "w", fresh(), epochs=1)


def test_the_rate_rises_then_falls_to_nothing() -> None:
    rates = [fit.rate(step, 100, 0.1) for step in range(100)]
    assert rates[0] < 0.2 and max(rates) == pytest.approx(1.0, abs=0.1) and rates[-1] < 0.001
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1]) and rates[top:] == sorted(rates[top:], reverse=True)
    assert fit.rate(0, 10, 0.0) == 1.0


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
