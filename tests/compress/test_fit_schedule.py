"""The learning rate: the field's schedules as PyTorch computes them, each complete at the end of the run."""

from typing import Any

import pytest
import torch

from compress.config import Training
from compress.training import rate, schedule

TOTAL = 200


def shares(total: int = TOTAL, **changes: Any) -> list[float]:
    config = Training(epochs=10, **changes)
    return [schedule.share(config, step, total) for step in range(total)]


def theirs(kind: type, **options: Any) -> list[float]:
    """A scheduler of PyTorch's, its peak at 1."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = kind(optimizer, **options)
    found = []
    for _ in range(TOTAL):
        found.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.3])
def test_one_cycle_is_pytorchs(warmup: float) -> None:
    if warmup:
        options = {"max_lr": 1.0, "total_steps": TOTAL, "pct_start": warmup, "cycle_momentum": False}
        expected = theirs(torch.optim.lr_scheduler.OneCycleLR, **options)
        assert shares(schedule="one-cycle", warmup=warmup) == pytest.approx(expected, abs=1e-12)
    else:
        found = shares(schedule="one-cycle", warmup=0.0)
        assert found[0] == 1.0 and found == sorted(found, reverse=True)


def test_steps_fall_at_shares_and_at_epochs() -> None:
    expected = theirs(torch.optim.lr_scheduler.MultiStepLR, milestones=[100, 160], gamma=0.2)
    for milestones in ([0.5, 0.8], [5, 8], [0.5, 8]):  # 10 epochs of 20 steps
        found = shares(schedule="step", milestones=milestones, gamma=0.2, warmup=0.0)
        assert found == pytest.approx(expected)


def test_linear_falls_to_nothing_and_cosine_is_half_a_wave() -> None:
    linear = shares(schedule="linear", warmup=0.0)
    assert linear == pytest.approx([1 - step / TOTAL for step in range(TOTAL)])
    cosine = shares(schedule="cosine", warmup=0.0)
    assert cosine == pytest.approx(theirs(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=TOTAL))
    assert shares() == [rate(step, TOTAL, 0.1) for step in range(TOTAL)]  # the default, to the bit


@pytest.mark.parametrize("kind", ["cosine", "linear", "step", "one-cycle"])
def test_every_schedule_rises_over_the_warm_up_and_never_again(kind: str) -> None:
    found = shares(schedule=kind, warmup=0.2)
    top = found.index(max(found))
    assert 38 <= top <= 41 and max(found) == pytest.approx(1.0, abs=0.03)
    assert found[: top + 1] == sorted(found[: top + 1]) and found[top:] == sorted(found[top:], reverse=True)
    between = schedule.share(Training(epochs=10, schedule=kind, warmup=0.2), 150.5, TOTAL)
    assert found[151] <= between <= found[150]


@pytest.mark.parametrize("kind", ["cosine", "linear", "one-cycle"])
def test_at_the_end_nothing_is_left(kind: str) -> None:
    assert schedule.share(Training(schedule=kind), TOTAL, TOTAL) < 1e-4
