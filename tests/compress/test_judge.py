"""One definition of slack and of "wrong": what torch attacks climb and are judged by says the same as the device's."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from compress.attacks import judge, losses
from edge.attacks import checks

#: Few values, so that ties are common; and what is no number.
LOGIT = st.sampled_from([-2.0, -1.0, 0.0, 1.0, 2.0, 1e-30, np.inf, -np.inf, np.nan])
SMALL = st.floats(-30, 30, width=32)


@given(st.lists(st.tuples(st.integers(0, 3), *[LOGIT | SMALL] * 4), min_size=1, max_size=20))
def test_the_verdict_is_above_zero_exactly_where_the_prediction_is_wrong(rows: list[tuple[float, ...]]) -> None:
    labels = np.array([row[0] for row in rows], np.int64)
    logits = np.array([row[1:] for row in rows], np.float32)
    verdict = losses.verdict(torch.from_numpy(labels))(torch.from_numpy(logits))
    np.testing.assert_array_equal((verdict > 0).numpy(), checks.wrong(logits, labels))
    assert not verdict.isnan().any() and bool((verdict != 0).all())


def borderline(clean: np.ndarray, eps: float, seed: int) -> np.ndarray:
    """A candidate for each image: one pixel about as far away as the slack allows, or out of range, or no number."""
    rng = np.random.default_rng(seed)
    moved = clean.copy().reshape(len(clean), -1)
    for image in moved:
        pixel, way = rng.integers(len(image)), rng.choice([-1, 1])
        distance = eps + rng.choice([0, 0.5, 0.99, 1, 1.01, 2, 50]) * checks.SLACK
        image[pixel] = rng.choice(
            [image[pixel] + way * distance, np.nan, np.inf, -1e-9, 1 + 1e-6], p=[0.8, *[0.05] * 4]
        )
    return moved.reshape(clean.shape).astype(np.float32)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@given(seed=st.integers(0, 999), eps=st.sampled_from([0.0, 1 / 255, 0.1, 0.5]))
@settings(max_examples=40, deadline=None)
def test_the_judge_of_torch_models_admits_what_the_device_admits(norm: str, seed: int, eps: float) -> None:
    rng = np.random.default_rng(seed)
    clean = rng.random((16, 1, 3, 3), np.float32)
    moved, labels = borderline(clean, eps, seed), rng.integers(0, 4, 16)
    weight = torch.from_numpy(rng.integers(-1, 2, (9, 4)).astype(np.float32))

    def model(x: Tensor) -> Tensor:
        return x.flatten(1) @ weight

    judged = judge.judge_candidates(model, torch.from_numpy(moved), clean, labels, eps=eps, norm=norm)
    want = checks.admissible(moved, clean, eps, norm)
    np.testing.assert_array_equal(judged.admissible, want)
    assert judged.reasons.sum() == (~want).sum()
    shown = torch.nan_to_num(torch.from_numpy(moved)).clamp(0, 1)
    np.testing.assert_array_equal(judged.broke, want & checks.wrong(model(shown).numpy(), labels))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_slack_is_the_same_millionth_in_both_norms(norm: str) -> None:
    clean = np.full((4, 1, 1, 1), 0.5)
    moved = clean + np.array([0.1, 0.1 + 9e-7, 0.1 + 1.1e-6, 0.3]).reshape(clean.shape)
    assert checks.admissible(moved, clean, 0.1, norm).tolist() == [True, True, False, False]
