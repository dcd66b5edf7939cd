"""The weights of every epoch, kept beside the result: those that were validated, through kills, without effect."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from compress import training
from compress.attacks.pgd import accuracy
from compress.config import TeacherConfig, Training
from compress.data.split import Split
from compress.methods import registry
from compress.networks.network_files import read_weights
from compress.stages import teacher
from compress.training import checkpoint
from edge.core import artifact, interrupt
from edge.core.artifact import Work
from tests.compress.short_training import BRIEF, EPS, few, fresh, rows, same, train
from tests.compress.test_fit_resume import AtStep, asked

NAMES = ["epoch-0001.safetensors", "epoch-0002.safetensors"]


@pytest.mark.parametrize("average", ["none", "ema"])
def test_each_file_holds_the_weights_that_its_epoch_was_validated_with(tmp_path: Path, average: str) -> None:
    student = fresh()
    train(tmp_path, student, average=average, ema_decay=0.9, keep_epochs=True)
    assert sorted(path.name for path in tmp_path.glob("epoch*")) == NAMES
    split = Split.of(few(), "val", torch.device("cpu"))
    for name, row in zip(NAMES, rows(tmp_path), strict=True):
        worn, weights = fresh(9), load_file(tmp_path / name)
        assert weights.keys() == student.state_dict().keys()
        worn.load_state_dict(weights)
        assert accuracy(worn.eval(), split, 32) == row["validation_clean"]
    assert not same(*(load_file(tmp_path / name) for name in NAMES))


def test_they_change_nothing(tmp_path: Path) -> None:
    kept, plain = fresh(), fresh()
    train(tmp_path / "a", kept, keep_epochs=True)
    train(tmp_path / "b", plain)
    assert same(kept.state_dict(), plain.state_dict()) and not list((tmp_path / "b").glob("epoch*"))
    config = TeacherConfig(data="digits", threat={"eps": "0.1"})
    told = TeacherConfig(data="digits", threat={"eps": "0.1"}, keep_epochs=True, diagnose=5)
    assert told.semantic() == config.semantic()


def test_a_stage_has_them_as_records_and_a_resumed_one_has_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = {"data": "digits", "threat": {"eps": "40/255"}, "model": "resnet8", "method": "pgd-at"}
    config = TeacherConfig(**{**BRIEF, **shared, "batch_size": 256, "keep_epochs": True})
    whole = teacher.run(config, teacher.TeacherInputs(), tmp_path / "whole")
    assert {*NAMES, training.METRICS} == set(whole.manifest["records"])
    build = registry.build_objective
    monkeypatch.setattr(
        registry, "build_objective", lambda *args, **more: AtStep(6, asked())
    )  # in the second epoch of 4 steps
    with pytest.raises(interrupt.Interrupted):
        teacher.run(config, teacher.TeacherInputs(), tmp_path / "stopped")
    monkeypatch.setattr(registry, "build_objective", build)
    stopped = teacher.run(config, teacher.TeacherInputs(), tmp_path / "stopped")
    assert (
        stopped.identity
        == whole.identity
        == teacher.run(config, teacher.TeacherInputs(), tmp_path / "stopped").identity
    )
    hashes = [{name: stage.manifest["records"][name]["sha256"] for name in NAMES} for stage in (whole, stopped)]
    assert hashes[0] == hashes[1]
    best = load_file(whole.file(NAMES[whole.metrics["best_epoch"] - 1]))
    assert same(best, read_weights(whole.path))
    assert artifact.read(tmp_path / "stopped").identity == whole.identity


def test_epochs_before_they_were_wanted_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(interrupt.Interrupted):
        train(tmp_path, fresh(), objective=AtStep(5, asked()))
    work, student = Work(tmp_path), fresh()
    config: Any = Training(**{**BRIEF, "keep_epochs": True})
    objective = registry.build_objective("pgd-at", {}, student)
    training.fit(student, objective, None, few(), config, eps=EPS, seed=3, work=work, label="test")
    assert work.records == [training.METRICS, NAMES[1]]


def test_a_killed_attempt_leaves_exactly_what_the_next_one_reads() -> None:
    plain, keeping = Training(epochs=2), Training(epochs=2, keep_epochs=True)
    assert training.kept(plain) == training.KEEP and training.kept(keeping) == (*training.KEEP, *NAMES)
    assert checkpoint.epoch_files(0) == [] and checkpoint.epoch_files(10_000)[-1] == "epoch-10000.safetensors"
