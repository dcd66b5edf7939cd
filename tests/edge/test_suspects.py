"""Planted faults of an export, each named."""

import re

import numpy as np
import pytest

from edge.verify.alarms import CIFAR, IMAGENET, Infer, suspect

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (200, 3, 6, 6), dtype=np.uint8)
WEIGHTS = RNG.normal(size=(3 * 36, 8)).astype(np.float32)


def twin(x: np.ndarray) -> np.ndarray:
    """Two layers, so that scaling the pixels does not only scale the logits."""
    hidden = np.tanh((x.reshape(len(x), -1) - 0.5) @ WEIGHTS)
    return np.asarray(hidden @ WEIGHTS[:8] * 3, np.float32)


def normalised(x: np.ndarray, statistics: tuple) -> np.ndarray:
    mean, std = (np.array(values, np.float32)[None, :, None, None] for values in statistics)
    return (x - mean) / std


def raw(x: np.ndarray, statistics: tuple) -> np.ndarray:
    mean, std = (np.array(values, np.float32)[None, :, None, None] for values in statistics)
    return x * std + mean


FAULTS: dict[str, tuple[Infer, str]] = {
    "divided twice": (lambda x: twin(x / 255), r"0…255, or divides them once more"),
    "not divided": (lambda x: twin(x * 255), "multiplies pixels by 255"),
    "minus one to one": (lambda x: twin((x + 1) / 2), "takes pixels in −1…1"),
    "once more": (lambda x: twin(2 * x - 1), "brings pixels into −1…1 once more"),
    "other channels": (lambda x: twin(x[:, ::-1]), "blue, green, red"),
    "wants CIFAR's": (lambda x: twin(raw(x, CIFAR)), "takes pixels normalised by CIFAR"),
    "adds ImageNet's": (lambda x: twin(normalised(x, IMAGENET)), "normalises pixels by ImageNet's .* once more"),
    "two classes swapped": (lambda x: twin(x)[:, [0, 5, 2, 3, 4, 1, 6, 7]], r"another order \(1 → 5, 5 → 1\)"),
    "saturated": (lambda x: np.clip(twin(x), -0.5, 0.5) + 0.1 * np.arange(8, dtype=np.float32), "logits spread 0"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_named(fault: str) -> None:
    infer, name = FAULTS[fault]
    found = suspect(lambda x: np.asarray(infer(x), np.float32), IMAGES, twin(IMAGES.astype(np.float32) / 255))
    assert re.search(name, found), found


def test_noise_and_the_twin_itself_have_no_suspect() -> None:
    want = twin(IMAGES.astype(np.float32) / 255)
    draw = np.random.default_rng(1)
    assert suspect(twin, IMAGES, want) == ""
    assert suspect(lambda x: want[: len(x)] + draw.normal(0, 1, (len(x), 8)).astype(np.float32), IMAGES, want) == ""


def test_one_channel_knows_no_channel_order() -> None:
    images = IMAGES[:, :1]

    def gray(x: np.ndarray) -> np.ndarray:
        return twin(np.repeat(x, 3, 1))

    want = gray(images.astype(np.float32) / 255)
    assert "0…255" in suspect(lambda x: gray(x / 255), images, want)
