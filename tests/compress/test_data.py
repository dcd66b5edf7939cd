"""Digits on the 8-bit grid, and a split that no seed moves."""

import numpy as np
import pytest

from compress import data
from compress.data import stratified_split
from compress.errors import CompressError


def test_digits_are_the_real_ones_on_the_grid() -> None:
    digits = data.load("digits")
    assert digits.images.shape == (1797, 1, 8, 8) and digits.images.dtype == np.uint8
    levels = np.unique(digits.images)
    assert len(levels) == 17 and levels[0] == 0 and levels[-1] == 255
    assert np.abs(levels - np.arange(17) * 255 / 16).max() <= 0.5
    assert np.bincount(digits.labels).min() >= 170


def test_the_split_is_a_partition_with_every_class_in_proportion() -> None:
    digits = data.load("digits")
    together = np.concatenate(list(digits.splits.values()))
    assert sorted(together) == list(range(1797))
    assert [len(digits.splits[n]) for n in data.SPLITS] == [1149, 289, 359]
    whole = np.bincount(digits.labels) / 1797
    for index in digits.splits.values():
        assert np.abs(np.bincount(digits.labels[index]) / len(index) - whole).max() < 0.01


def test_the_split_never_moves() -> None:
    digits = data.load("digits")
    assert digits.split_hash.startswith("be8eafd2")
    assert digits.fingerprint.startswith("2d57196b")


def test_fingerprint_follows_one_pixel_and_split_hash_one_index() -> None:
    digits = data.load("digits")
    images = digits.images.copy()
    images[5, 0, 3, 3] ^= 1
    changed = data.Dataset("digits", images, digits.labels, digits.splits, digits.classes)
    assert changed.fingerprint != digits.fingerprint and changed.split_hash == digits.split_hash
    moved = {**digits.splits, "val": digits.splits["val"][1:]}
    assert data.Dataset("digits", images, digits.labels, moved, digits.classes).split_hash != digits.split_hash


def test_equal_images_are_still_split_into_disjoint_parts() -> None:
    images, labels = np.zeros((40, 1, 2, 2), np.uint8), np.repeat([0, 1], 20)
    parts = stratified_split(images, labels, {"train": 0.5, "val": 0.25, "test": 0.25})
    assert sorted(np.concatenate(list(parts.values()))) == list(range(40))
    assert [len(part) for part in parts.values()] == [20, 10, 10]


def test_an_unknown_dataset_is_refused_with_the_nearest() -> None:
    with pytest.raises(CompressError, match="did you mean 'digits'"):
        data.load("digit")
