"""Transformers, ConvNeXts and networks with BatchNorm teach each other, by pooled features and by stages."""

from pathlib import Path
from typing import Any

import pytest
import torch

from compress.data.split import Split
from compress.methods import registry
from compress.training.average import copied
from tests.compress.short_training import few, fresh, rows, same, train

PAIRS = [("vit-nano-4", "resnet8"), ("resnet8", "vit-nano-4"), ("convnext-yocto-1", "vit-nano-4")]


@pytest.mark.parametrize(("student", "teacher"), PAIRS)
def test_a_network_learns_from_one_of_another_family(student: str, teacher: str, tmp_path: Path) -> None:
    pupil, guide = fresh(name=student), fresh(1, teacher).eval().requires_grad_(False)
    dataset = few(train=32, val=32)
    options = {"features": "stages", "projection": "learned"}
    clean = Split.of(dataset, "train", torch.device("cpu")).clean(16)
    objective = registry.build_objective("vgap", options, pupil, guide, clean)
    before, maps = copied(pupil), [value.clone() for value in objective.parameters()]
    assert len(maps) == 3  # of a ConvNeXt's four stages the last three
    changes: dict[str, Any] = {"dataset": dataset, "epochs": 1, "optimizer": "adamw", "lr": 0.001}
    train(tmp_path / "w", pupil, objective=objective, teacher=guide, **changes)
    assert not same(before, pupil.state_dict())
    assert not any(torch.equal(*pair) for pair in zip(maps, objective.parameters(), strict=True))
    assert rows(tmp_path / "w")[0]["cov"] > 0
