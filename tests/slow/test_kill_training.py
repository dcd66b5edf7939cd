"""A distillation killed twenty times, at any moment of it: the weights of an undisturbed one, bit for bit."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from compress.cli.execute import execute
from edge.core import artifact

pytestmark = pytest.mark.slow

#: kill -9 is the one that nothing can answer
KILLS = {signal.SIGKILL: 20, signal.SIGTERM: 5}
#: A kill comes after a start-up that takes as long as a few epochs, so there is a checkpoint every few steps.
OFTEN = "checkpoint_minutes=0.003"
SETTINGS = ["attack.steps=5", "validate_steps=5", "average=ema", "awp.gamma=0.005", "precision=float32", OFTEN]


def command(teacher: Path, out: Path) -> list[str]:
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    options = ["--student", "resnet8", "--method", "vgap", "--epochs", "12", "--lr", "0.02", "--floor", "0", "--out"]
    return ["distill", "--teacher", str(teacher), *options, str(out), *settings]


def start(arguments: list[str]) -> "subprocess.Popen[bytes]":
    process = [sys.executable, "-m", "compress", *arguments]
    return subprocess.Popen(process, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("teacher") / "teacher"
    brief = ["--data", "digits", "--model", "resnet8", "--epochs", "6", "--precision", "float32"]
    made = ["teacher", "train", *brief, "--set", "attack.steps=1", "--out", str(out)]
    assert execute(made) == 0
    return out


@pytest.fixture(scope="module")
def undisturbed(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[artifact.Stage, float]:
    out, began = tmp_path_factory.mktemp("whole") / "student", time.monotonic()
    process = start(command(teacher, out))
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()[-2000:]
    return artifact.read(out), time.monotonic() - began


@pytest.mark.parametrize("how", list(KILLS))
def test_after_kills_the_weights_are_the_undisturbed_ones(
    teacher: Path, undisturbed: tuple[artifact.Stage, float], tmp_path: Path, how: signal.Signals
) -> None:
    whole, seconds = undisturbed
    out, draw, killed = tmp_path / "student", random.Random(how.value), 0
    while killed < KILLS[how]:
        process = start(command(teacher, out))
        try:
            _, errors = process.communicate(timeout=draw.uniform(0.02, 0.4) * seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(how)
            _, errors = process.communicate()
            killed += 1
            assert process.returncode == (130 if how == signal.SIGTERM else -signal.SIGKILL)
            if how == signal.SIGTERM:
                assert errors.decode().splitlines()[-1].startswith("compress: interrupted (SIGTERM)")
        else:  # it came to its end before the next kill: judged, and begun anew
            assert process.returncode == 0, errors.decode()[-2000:]
            check(out, whole)
            shutil.rmtree(out)
    process = start(command(teacher, out))
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()[-2000:]
    check(out, whole)


def check(out: Path, whole: artifact.Stage) -> None:
    stage = artifact.read(out)
    assert stage.manifest["payload"] == whole.manifest["payload"] and stage.identity == whole.identity
    assert stage.metrics["test"] == whole.metrics["test"] and "bit_identical" not in stage.metrics
    rows = [json.loads(line) for line in stage.file("metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == list(range(1, 13))
    assert not [path for path in out.parent.rglob("*") if path.name.endswith((".partial", ".old", ".tmp"))]
