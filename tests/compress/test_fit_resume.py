"""Stops in the middle of an epoch: the same bits as without, told apart from a resume under other conditions."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from compress import training
from compress.methods.objective import Search, TrainingBatch
from compress.networks.base import Classifier
from compress.training.average import copied
from edge.core import interrupt
from edge.core.errors import CheckFailed
from tests.compress.short_training import PgdTraining, fresh, same, train

#: Everything with a state of its own.
FULL: dict[str, Any] = {"awp": {"gamma": 0.01}, "clip": 1.0, "augment": "idbh-weak", "momentum": 0.9}


class AtStep(PgdTraining):
    """Adversarial training that does something at its n-th step."""

    def __init__(self, step: int, act: Callable[[], object]) -> None:
        super().__init__()
        self.left, self.act = step, act

    def search(self, student: Classifier, batch: TrainingBatch) -> Search:
        self.left -= 1
        if self.left == 0:
            self.act()
        return super().search(student, batch)


def asked(number: int = signal.SIGTERM) -> Callable[[], object]:
    return lambda: interrupt.ask(number)


@pytest.mark.parametrize(("average", "stops"), [("ema", (3, 2)), ("swa", (6,)), ("none", (4, 1))])
def test_asked_to_stop_anywhere_the_resumed_run_ends_in_the_same_bits(
    tmp_path: Path, average: str, stops: tuple[int, ...]
) -> None:
    changes = {**FULL, "average": average, "swa_start": 0.0}
    whole, folder = fresh(), tmp_path / "stopped"
    train(tmp_path / "whole", whole, **changes)
    done = 0
    for stop in stops:
        with pytest.raises(interrupt.Interrupted, match="SIGTERM"):
            train(
                folder, fresh(seed=done), objective=AtStep(stop, asked()), **changes
            )  # resumed: whatever it starts from
        done += stop
        state = torch.load(folder / training.CHECKPOINT, weights_only=True)["state"]
        assert 4 * state["epoch"] + state["step"] == done  # that step was ended and kept
    resumed = fresh(seed=99)
    found = train(folder, resumed, **changes)
    assert same(whole.state_dict(), resumed.state_dict()) and "bit_identical" not in found
    rows = [
        [json.loads(line) for line in (at / training.METRICS).read_text().splitlines()]
        for at in (tmp_path / "whole", folder)
    ]
    timeless = [
        [{k: v for k, v in row.items() if k not in ("seconds", "images_per_s")} for row in part] for part in rows
    ]
    assert timeless[0] == timeless[1]  # the sums of an epoch too go on where they stood


def test_a_transformer_by_adamw_resumes_in_the_same_bits(tmp_path: Path) -> None:
    changes = {**FULL, "optimizer": "adamw", "average": "ema", "epochs": 1}
    whole, resumed = fresh(name="vit-nano-4"), fresh(seed=7, name="vit-nano-4")
    start = copied(whole)
    train(tmp_path / "whole", whole, **changes)
    with pytest.raises(interrupt.Interrupted):
        train(tmp_path / "stopped", fresh(name="vit-nano-4"), objective=AtStep(2, asked()), **changes)
    train(tmp_path / "stopped", resumed, **changes)
    assert same(whole.state_dict(), resumed.state_dict()) and not same(whole.state_dict(), start)


def test_checkpoints_come_by_the_clock(tmp_path: Path) -> None:
    seen = []
    path = tmp_path / "w" / training.CHECKPOINT
    look = AtStep(3, lambda: seen.append(torch.load(path, weights_only=True)["state"]["step"]))
    train(tmp_path / "w", fresh(), objective=look, checkpoint_minutes=1e-9)
    assert seen == [2]
    never = AtStep(
        3, lambda: seen.append(path.with_name("x").exists() or (tmp_path / "v" / training.CHECKPOINT).exists())
    )
    train(tmp_path / "v", fresh(), objective=never)
    assert seen == [2, False]


def test_the_last_good_checkpoint_survives_a_loss_that_is_not_finite(tmp_path: Path) -> None:
    student = fresh()

    def spoil() -> None:
        with torch.no_grad():
            student.linear.bias[0] = float("nan")

    with pytest.raises(CheckFailed, match=r"epoch 2, step 1: adversarial is not finite"):
        train(tmp_path / "w", student, objective=AtStep(5, spoil), checkpoint_minutes=1e-9)
    content = torch.load(tmp_path / "w" / training.CHECKPOINT, weights_only=True)
    assert (content["state"]["epoch"], content["state"]["step"]) == (1, 0)
    assert all(bool(value.isfinite().all()) for value in content["student"].values())


def test_a_resume_under_other_conditions_is_told_and_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(interrupt.Interrupted):
        train(tmp_path, fresh(), objective=AtStep(2, asked()))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        found = train(tmp_path, fresh())
    finally:
        torch.set_num_threads(threads)
    assert found["bit_identical"] is False
    assert found["resumed_under"] == {"threads": f"{threads} → {threads + 1}"}
    lines = [line for line in capsys.readouterr().err.splitlines() if "other conditions" in line]
    assert len(lines) == 1 and f"threads {threads} → {threads + 1}" in lines[0]


def test_outside_a_loop_nobody_listens() -> None:
    assert interrupt.ask(signal.SIGINT) is False and interrupt.asked() is None
    with pytest.raises(interrupt.Interrupted), interrupt.deferred():  # too late for a step: said on leaving
        assert interrupt.ask(signal.SIGINT)
    with interrupt.deferred():
        assert interrupt.asked() is None  # a new loop begins with a clean slate


PROGRAM = """
import signal, sys, time
from edge.core import interrupt
interrupt.GRACE_S = 0.5
interrupt.watch((signal.SIGINT, signal.SIGTERM))
if sys.argv[1] == "outside":
    print("ready", flush=True)
    time.sleep(30)
with interrupt.deferred():
    print("ready", flush=True)
    while sys.argv[1] == "stuck" or not interrupt.asked():
        time.sleep(0.01)
    print("saved", flush=True)
    try:
        raise interrupt.Interrupted(interrupt.asked())
    except interrupt.Interrupted as stop:
        interrupt.end(stop.number)
"""


@pytest.mark.parametrize(("how", "saved"), [("outside", False), ("listening", True), ("stuck", False)])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_process_ends_by_itself_when_its_loop_does_not(how: str, saved: bool, number: signal.Signals) -> None:
    command = [sys.executable, "-c", PROGRAM, how]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    began = time.monotonic()
    os.kill(process.pid, number)
    out, errors = process.communicate(timeout=20)
    assert process.returncode == 130 and out == ("saved\n" if saved else "")
    assert errors == f"compress: interrupted ({number.name}); the same command resumes where it stopped\n"
    assert (time.monotonic() - began > 0.4) == (how == "stuck")


def test_a_copy_of_a_state_is_one(tmp_path: Path) -> None:
    student = fresh()
    kept = copied(student)
    with torch.no_grad():
        student.conv1.weight.add_(1)
    assert not torch.equal(kept["conv1.weight"], student.conv1.weight)


def test_what_changes_no_result_is_no_part_of_the_identity() -> None:
    from compress.config import TeacherConfig, parse

    plain = parse(TeacherConfig, {"data": "digits"}, "test").semantic()
    assert "features" not in plain and "weights" not in plain  # as stages had it before there were such keys
    named = parse(TeacherConfig, {"data": "digits", "features": {"pooled": "head"}}, "test").semantic()
    assert named["features"]["pooled"] == "head"
    shown = {"data": "digits", "checkpoint_minutes": 1, "tensorboard": True}
    assert parse(TeacherConfig, shown, "test").semantic() == plain
    assert parse(TeacherConfig, {"data": "digits", "average": "ema"}, "test").semantic() != plain
