"""Training against the clock: ends on time, its schedule complete, and says when the time is too short."""

import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from compress import training
from compress.training import schedule
from compress.training.schedule import Clock
from edge.core import interrupt, progress
from edge.core.errors import CompressError
from tests.compress.short_training import fresh, train
from tests.compress.test_fit_resume import AtStep, asked


def test_the_schedule_follows_whichever_is_further() -> None:
    clock = Clock(100.0, spent=50.0)
    clock.reserve = 20.0  # 80 s for steps, 50 of them gone
    assert clock.position(0, 1000) == pytest.approx(625, abs=1)
    assert clock.position(900, 1000) == 900 and not clock.over()
    late = Clock(100.0, spent=81.0)
    late.reserve = 20.0
    assert late.position(3, 1000) == 1000 and late.over()
    assert Clock(None, spent=1e9).position(3, 1000) == 3 and not Clock(None, spent=1e9).over()


def test_training_ends_on_time_with_its_schedule_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By a clock that goes on 5 s whenever it is read: a budget of 1,000 s is some fifty steps long."""
    for module in (schedule, progress):
        ticks = itertools.count(step=5.0)
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda ticks=ticks: next(ticks)))
    found = train(tmp_path, fresh(), epochs=10_000, budget="1000s")
    rows = [json.loads(line) for line in (tmp_path / training.METRICS).read_text().splitlines()]
    assert 500 < found["seconds"] < 1100 and found["budget_seconds"] == 1000
    assert 1 <= len(rows) == found["epochs"] < 30
    assert rows[-1]["lr"] < 0.05 * 0.1 < rows[0]["lr"]
    assert found["validation_last"]["clean"] == rows[-1]["validation_clean"]
    lines = [line for line in capsys.readouterr().err.splitlines() if " left" in line]  # one estimate: the budget's
    assert len(lines) > 3 and all(line.count("left") == line.count("of the budget left") == 1 for line in lines)


def test_what_was_spent_before_a_kill_counts(tmp_path: Path) -> None:
    with pytest.raises(interrupt.Interrupted):
        train(tmp_path, fresh(), epochs=10_000, budget="60s", objective=AtStep(6, asked()))
    path = tmp_path / training.CHECKPOINT
    content = torch.load(path, weights_only=True)
    assert content["state"]["spent"] > 0
    content["state"]["spent"] = 60.0  # all of it, so no matter how fast the machine is
    torch.save(content, path)
    found = train(tmp_path, fresh(), epochs=10_000, budget="60s")
    assert found["epochs"] == 2  # what was begun is validated, nothing else
    assert found["seconds"] >= 60


def test_a_budget_shorter_than_an_epoch_is_refused_after_a_few_steps(tmp_path: Path) -> None:
    with pytest.raises(CompressError, match=r"budget 0\.05s: one epoch takes about .* give at least \d+s"):
        train(tmp_path, fresh(), batch_size=16, budget="0.05s")
    assert not list(tmp_path.iterdir())


def test_all_the_epochs_may_be_done_before_the_time_is_up(tmp_path: Path) -> None:
    found = train(tmp_path, fresh(), epochs=2, budget="2h")
    rows = [json.loads(line) for line in (tmp_path / training.METRICS).read_text().splitlines()]
    assert found["epochs"] == len(rows) == 2 and rows[-1]["lr"] < 0.05 * 0.2
