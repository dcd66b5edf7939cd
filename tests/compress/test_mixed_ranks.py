"""Extra images, several teachers and diagnosed steps on two ranks: what one process finds."""

from pathlib import Path

import pytest
import torch

from tests.compress.rank_programs.mixed_step import trained
from tests.compress.test_ranks import together


def test_two_ranks_train_as_one(tmp_path: Path) -> None:
    done = together(2, "mixed_step.py", str(tmp_path))
    assert [each.returncode for each in done] == [0, 0], "".join(each.stderr for each in done)
    found, alone = torch.load(tmp_path / "found.pt"), trained(tmp_path / "alone")
    assert found["apart"] == []
    assert found["files"] == [["checkpoint.pt", "epoch-0001.safetensors", "metrics.jsonl"], []]  # rank 0 alone writes
    for name, value in alone["weights"].items():
        torch.testing.assert_close(found["weights"][name], value, rtol=1e-3, atol=1e-5, msg=name)
    ((row,), (one,)) = found["rows"], alone["rows"]
    figures = [name for name in one if name.startswith(("gradient", "covariance", "labels", "teacher"))]
    assert len(figures) == 2 + 2 * 3 + 2
    assert {name: row[name] for name in figures} == pytest.approx({name: one[name] for name in figures}, rel=1e-3)
    assert 0 < one["gradient_share_teacher"] < one["gradient_share_labels"] < 1
