"""Digits on the 8-bit grid, and a split that no seed moves."""

import numpy as np
import pytest

from compress import data
from compress.data.dataset import SPLITS, Dataset, assemble_dataset, stratified_split
from compress.names import resolved
from edge.core.errors import CompressError


def test_digits_are_the_real_ones_on_the_grid() -> None:
    digits = data.load("digits")
    assert digits.images.shape == (1797, 1, 8, 8) and digits.images.dtype == np.uint8
    levels = np.unique(digits.images)
    assert len(levels) == 17 and levels[0] == 0 and levels[-1] == 255
    assert np.abs(levels - np.arange(17) * 255 / 16).max() <= 0.5
    assert np.bincount(digits.labels).min() >= 170


def test_the_split_is_a_partition_with_every_class_in_proportion() -> None:
    digits = data.load_dataset("digits")
    together = np.concatenate(list(digits.splits.values()))
    assert sorted(together) == list(range(1797))
    assert [len(digits.splits[n]) for n in SPLITS] == [1149, 289, 359]
    whole = np.bincount(digits.labels) / 1797
    for index in digits.splits.values():
        assert np.abs(np.bincount(digits.labels[index]) / len(index) - whole).max() < 0.01


def test_the_split_never_moves() -> None:
    digits = data.load_dataset("digits")
    assert digits.split_hash.startswith("be8eafd2")
    assert digits.fingerprint.startswith("2d57196b")


def test_fingerprint_follows_one_pixel_and_split_hash_one_index() -> None:
    digits = data.load_dataset("digits")
    images = digits.images.copy()
    images[5, 0, 3, 3] ^= 1
    changed = Dataset("digits", images, digits.labels, digits.splits, digits.classes)
    assert changed.fingerprint != digits.fingerprint and changed.split_hash == digits.split_hash
    moved = {**digits.splits, "val": digits.splits["val"][1:]}
    assert Dataset("digits", images, digits.labels, moved, digits.classes).split_hash != digits.split_hash


def test_equal_images_are_still_split_into_disjoint_parts() -> None:
    images, labels = np.zeros((40, 1, 2, 2), np.uint8), np.repeat([0, 1], 20)
    parts = stratified_split(images, labels, {"train": 0.5, "val": 0.25, "test": 0.25})
    assert sorted(np.concatenate(list(parts.values()))) == list(range(40))
    assert [len(part) for part in parts.values()] == [20, 10, 10]


def test_an_unknown_dataset_is_refused_with_the_nearest() -> None:
    with pytest.raises(CompressError, match="did you mean 'digits'"):
        data.load_dataset("digit")


def test_every_kind_that_can_be_written_has_a_loader() -> None:
    kinds = ["digits", "cifar10", "cifar100", "imagefolder", "idx", "npz", "parquet"]
    assert [source.name for source in data.SOURCES] == list(data.source_names()) == kinds
    assert all(callable(resolved(source.load)) for source in data.SOURCES)


def _plain(n_train: int, n_test: int, classes: int) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    count = n_train + n_test
    images = np.arange(count * 4, dtype=np.uint32).view(np.uint8).reshape(count, 1, 4, 4)
    parts = {"train": np.arange(n_train), "test": np.arange(n_train, count)}
    return images, np.arange(count) % classes, parts


def test_the_validation_part_is_a_tenth_of_train_in_each_class_and_the_test_part_stays() -> None:
    images, labels, official = _plain(400, 60, 4)
    made = assemble_dataset("npz", "here", images, labels, official)
    assert made.splits["test"].tolist() == list(range(400, 460))
    assert sorted([*made.splits["train"], *made.splits["val"]]) == list(range(400))
    assert np.bincount(labels[made.splits["val"]]).tolist() == [10] * 4


def test_the_validation_part_is_never_more_than_5000_images() -> None:
    images, labels, official = _plain(60_000, 4, 4)
    assert len(assemble_dataset("npz", "here", images, labels, official).splits["val"]) == 5000


def test_the_parts_are_those_of_the_stratified_split_of_the_train_images() -> None:
    images, labels, official = _plain(200, 20, 2)
    made = assemble_dataset("npz", "here", images, labels, official)
    want = stratified_split(images[:200], labels[:200], {"train": 0.9, "val": 0.1})
    assert {name: made.splits[name].tolist() for name in want} == {name: want[name].tolist() for name in want}


def test_an_own_validation_part_is_kept_and_no_parts_at_all_are_split_as_digits() -> None:
    images, labels, _ = _plain(100, 0, 2)
    own = {"train": np.arange(50), "val": np.arange(50, 70), "test": np.arange(70, 100)}
    assert assemble_dataset("npz", "here", images, labels, own).splits["val"].tolist() == list(range(50, 70))
    assert [len(i) for i in assemble_dataset("npz", "here", images, labels, {}).splits.values()] == [64, 16, 20]


@pytest.mark.parametrize(
    ("labels", "official", "says"),
    [
        (np.zeros(20, int), {}, "all images have one class"),
        (np.r_[np.arange(19) % 2, -1], {}, "image 19 has label -1, outside 0…1"),
        (np.arange(20) % 2 + 1, {}, "class '0' has no training image"),
        (np.arange(20) % 2 * 0.5, {}, "labels are float64 of shape"),
        (np.arange(19) % 2, {}, r"of shape \(19,\) for 20 images"),
        (np.arange(20) % 2, {"test": np.arange(20)}, "has test but no train part"),
        (np.arange(20) % 2, {"train": np.arange(9), "val": np.arange(9, 20)}, "has train and val but no test part"),
        (np.arange(20) % 5, {"train": np.arange(10), "test": np.arange(10, 20)}, "leave none for val"),
    ],
)
def test_what_cannot_be_split_is_refused(labels: np.ndarray, official: dict[str, np.ndarray], says: str) -> None:
    images = np.zeros((20, 1, 2, 2), np.uint8)
    with pytest.raises(CompressError, match=says) as fault:
        assemble_dataset("npz", "here", images, labels, official)
    assert "\n" not in str(fault.value) and str(fault.value).startswith("here: ")
