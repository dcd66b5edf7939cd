"""Training under torchrun, as a user starts it: rank 0's folder, and the losses of one process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.compress.test_ranks import environment

pytestmark = pytest.mark.slow

BRIEF = ["--data", "digits", "--epochs", "2", "--batch-size", "63", "--precision", "float32"]
SHORT = [*BRIEF, "--set", "attack.steps=2", "--set", "validate_steps=2", "--set", "test_steps=2"]


def compress(world: int, *args: str) -> str:
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world)] if world > 1 else []
    command = [sys.executable, *launch, "-m", "compress", *args]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows(stage: Path) -> "list[dict[str, float]]":
    return [json.loads(line) for line in (stage / "metrics.jsonl").read_text().splitlines()]


def test_a_teacher_and_its_student_are_trained_by_two_processes(tmp_path: Path) -> None:
    compress(1, "teacher", "train", "--model", "resnet8", *SHORT, "--out", str(tmp_path / "teacher"))
    shared = compress(2, "teacher", "train", "--model", "resnet8", *SHORT, "--out", str(tmp_path / "teacher-2"))
    assert shared.count("teacher-2") == 1, "rank 0 alone prints"
    learn = ["distill", "--teacher", str(tmp_path / "teacher"), "--student", "resnet8", "--method", "vgap", *SHORT]
    for world in (1, 2):
        compress(world, *learn, "--allow-non-robust", "--out", str(tmp_path / f"student-{world}"))
    for name, other in (("teacher", "teacher-2"), ("student-1", "student-2")):
        one, two = rows(tmp_path / name), rows(tmp_path / other)
        assert len(one) == len(two) == 2
        parts = [key for key in one[0] if key not in ("epoch", "lr", "seconds", "images_per_s")]
        for part in parts:  # float32: the roundings of an epoch apart
            assert two[0][part] == pytest.approx(one[0][part], rel=0.05, abs=0.05), part
        assert not (tmp_path / f"{other}.partial").exists()
