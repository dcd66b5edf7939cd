"""The ensemble under torchrun: the verdicts of one process, whatever the number of ranks."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from compress.config import EvaluateConfig, parse
from compress.stages import evaluate
from tests.compress.rank_programs import ensemble_run
from tests.compress.test_ranks import PROGRAMS, environment


def torchrun(world: int, *command: str) -> subprocess.CompletedProcess[str]:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world)]
    return subprocess.run([*launch, *command], env=environment(), capture_output=True, text=True, timeout=240)


@pytest.fixture(scope="module")
def alone() -> "dict[str, np.ndarray]":
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as under torchrun: another number sums in another order
    try:
        return ensemble_run.tables(ensemble_run.attacked())
    finally:
        torch.set_num_threads(before)


def partial(folder: Path) -> None:
    """A state in which one process came to the end of its first batch."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    found = ensemble_run.attacked(str(folder), budget_s=1e-9)
    torch.set_num_threads(before)
    assert found.inconclusive.any()


def test_two_ranks_find_what_one_finds_and_go_on_where_one_stopped(
    alone: "dict[str, np.ndarray]", tmp_path: Path
) -> None:
    state, file = tmp_path / "state", tmp_path / "found.npz"
    partial(state)
    done = torchrun(2, str(PROGRAMS / "ensemble_run.py"), str(file), str(state))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "ranks: 2\n"
    assert 0.2 < alone["right"][alone["broken_by"] < 0].mean() < 1 and (alone["broken_by"] >= 0).any()
    with np.load(file) as found:
        for name, table in alone.items():
            assert np.array_equal(found[name], table), name
    assert len(list(state.glob("attack-00-*.npz"))) >= 5  # rank 0 kept every batch, its own and the others'


@pytest.mark.slow
def test_evaluate_under_torchrun_makes_the_stage_that_one_process_makes(chain: SimpleNamespace, tmp_path: Path) -> None:
    given = {"data": "digits", "threat": {"eps": "24/255"}, "images": 40, "attack": ["pgd-3"], "batch_size": 8}
    one = evaluate.run(
        parse(EvaluateConfig, given, "test"), evaluate.EvaluateInputs(model=chain.student), tmp_path / "one"
    )
    flags = ["--eps", "24/255", "--images", "40", "--attack", "pgd-3", "--batch-size", "8"]
    done = torchrun(2, "-m", "compress", "evaluate", str(chain.student), *flags, "--out", str(tmp_path / "two"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("evaluated") >= 1
    with np.load(one.file("verdicts.npz")) as a, np.load(tmp_path / "two" / "verdicts.npz") as b:
        assert np.mean(a["robust"] == b["robust"]) >= 0.97  # other threads, other roundings
        assert np.array_equal(a["index"], b["index"])


def test_a_verb_of_one_process_refuses_several(tmp_path: Path) -> None:
    done = torchrun(2, "-m", "compress", "export", str(tmp_path), "--target", "onnx", "--out", str(tmp_path / "e"))
    assert done.returncode != 0
    assert "compress: compress export works as one process, torchrun started 2; leave it out" in done.stderr
