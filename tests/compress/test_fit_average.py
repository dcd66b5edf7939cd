"""Averaged weights against the formulas, and that they are what is validated and kept."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from compress import training
from compress.attacks.pgd import accuracy
from compress.config import Training
from compress.data.split import Split
from compress.training import average, schedule
from compress.training.average import Average, copied
from tests.compress.short_training import BRIEF, few, fresh, same, train


def moved(student: torch.nn.Module) -> None:
    with torch.no_grad():
        for value in student.state_dict().values():
            value.add_(torch.randn(value.shape) if value.is_floating_point() else 1)


def test_ema_is_the_formula_with_its_warm_up() -> None:
    student = fresh()
    mean = Average("ema", 0.5, student)
    expected = {name: value.double() for name, value in copied(student).items()}
    for t in range(8):
        moved(student)
        mean.after_step(student)
        decay = min(0.5, (1 + t) / (10 + t))
        now = student.state_dict()
        expected = {name: decay * old + (1 - decay) * now[name].double() for name, old in expected.items()}
    for name, value in mean.weights.items():
        if value.is_floating_point():
            torch.testing.assert_close(value.double(), expected[name], atol=1e-6, rtol=1e-5)
        else:
            assert torch.equal(value, student.state_dict()[name])


def test_swa_is_the_mean_with_statistics_of_its_own() -> None:
    student = fresh()
    images = [torch.rand(16, 1, 8, 8) for _ in range(3)]
    mean, seen = Average("swa", 0.0, student), []
    for _ in range(3):
        moved(student)
        mean.after_epoch(student, lambda: iter(images))
        seen.append(copied(student))
    for name, parameter in mean.weights.items():
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(parameter, torch.stack([s[name] for s in seen]).mean(0), atol=1e-5, rtol=1e-4)
    with mean.worn(student):
        before = torch.cat([student.conv1(x) for x in images])  # what the first BatchNorm is given
        torch.testing.assert_close(student.bn1.running_mean, before.mean((0, 2, 3)), atol=1e-5, rtol=1e-4)
        assert all(module.momentum == 0.1 for module in student.modules() if hasattr(module, "momentum"))
    assert same(student.state_dict(), seen[-1])  # and the student goes on where it was


def test_wearing_the_average_leaves_no_trace() -> None:
    student = fresh()
    mean = Average("ema", 0.9, student)
    moved(student)
    mean.after_step(student)
    own = copied(student)
    with mean.worn(student):
        assert same(student.state_dict(), mean.weights) and not same(own, mean.weights)
    assert same(student.state_dict(), own)
    with Average("none", 0.0, student).worn(student):
        assert same(student.state_dict(), own)


def test_a_network_without_batchnorm_has_no_statistics_to_find() -> None:
    linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    average.statistics_anew(linear, lambda: pytest.fail("nothing to look at"))


@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_the_averaged_weights_are_validated_and_kept(tmp_path: Path, kind: str) -> None:
    student, plain = fresh(), fresh()
    found = train(tmp_path / "a", student, average=kind, swa_start=0.0, ema_decay=0.9)
    train(tmp_path / "b", plain)
    assert not torch.equal(student.state_dict()["conv1.weight"], plain.state_dict()["conv1.weight"])
    split = Split.of(few(), "val", torch.device("cpu"))
    assert accuracy(student, split, Training(**BRIEF).batch_size) == found["validation"]["clean"]


def test_swa_begins_with_the_epoch_that_ends_its_share_of_the_run(tmp_path: Path) -> None:
    """As published code does, `if epoch >= 95` of epochs 1 to 200: of four epochs and one half the last three."""
    student, plain = fresh(), fresh()
    train(tmp_path / "a", student, average="swa", swa_start=0.5, epochs=4)
    train(tmp_path / "b", plain, epochs=4, keep_epochs=True)
    last = torch.load(tmp_path / "a" / training.CHECKPOINT, weights_only=True)["average"]
    files = [load_file(tmp_path / "b" / f"epoch-000{epoch}.safetensors") for epoch in (2, 3, 4)]
    assert last["count"] == 3
    for name in plain.state_dict():
        if "running" not in name and "num_batches" not in name:
            mean = torch.stack([epoch[name] for epoch in files]).mean(0)
            torch.testing.assert_close(last["weights"][name], mean, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("epochs", [3, 7, 100, 200, 300])
def test_every_share_ends_with_its_epoch_whatever_floats_make_of_it(epochs: int) -> None:
    for steps in (1, 45, 390, 391):
        for epoch in range(1, epochs):
            begin = epoch / epochs
            begun = [schedule.reached(begin, at * steps, epochs * steps) for at in (epoch - 1, epoch)]
            assert begun == [False, True]
    assert [schedule.reached(0.475, 391 * at, 391 * 200) for at in (94, 95)] == [False, True]
    assert 0.07 * 100 > 7 and schedule.reached(0.07, 7, 100)
