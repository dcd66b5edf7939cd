"""Extra images in training: what is read, what is refused, and exactly which images every batch has."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from compress import data, training
from compress.data import content, extra
from compress.data.dataset import Dataset
from compress.data.extra import ExtraImages
from compress.data.split import Split
from compress.methods.objective import TrainingBatch
from compress.networks.base import Classifier
from compress.numerics.seeds import generator
from compress.training.update import Supply
from edge.core import interrupt
from edge.core.errors import CompressError
from tests.compress.short_training import PgdTraining, few, fresh, rows, same, train
from tests.compress.test_fit_resume import AtStep, asked

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROBUST_COMPRESS_CACHE", str(tmp_path / "cache"))


def generated(count: int = 50, key: int = 0, shape: tuple[int, ...] = (8, 8, 1)) -> tuple[np.ndarray, np.ndarray]:
    """Random images as they are published, (N,H,W,C), and labels."""
    draw = np.random.default_rng(key)
    return draw.integers(0, 256, (count, *shape), np.uint8), draw.integers(0, 10, count)


def written(path: Path, compressed: bool = False, **arrays: np.ndarray) -> str:
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return f"npz:{path}"


def mixed(count: int = 50, fraction: float = 0.7, labels: bool = True) -> ExtraImages:
    images, numbers = generated(count)
    return ExtraImages("npz:x", images.transpose(0, 3, 1, 2), numbers if labels else None, "", fraction=fraction)


def floats(source: ExtraImages, numbers: Tensor) -> Tensor:
    return torch.from_numpy(source.images[numbers.numpy()].copy()).float() / 255


def refusal(name: str, fraction: float = 0.5, batch: int = 32, dataset: "Dataset | None" = None) -> str:
    with pytest.raises(CompressError) as fault:
        extra.checked_extra(extra.load_extra(name), dataset or data.load_dataset("digits"), fraction, batch)
    assert "\n" not in str(fault.value)
    return str(fault.value)


# ---------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("keys", [("image", "label"), ("images", "labels"), ("x_train", "y_train")])
@pytest.mark.parametrize("compressed", [False, True])
def test_published_layouts_are_read_and_mapped_where_they_are_stored_as_they_are(
    tmp_path: Path, keys: tuple[str, str], compressed: bool
) -> None:
    images, labels = generated()
    found = extra.load_extra(written(tmp_path / "x.npz", compressed, **{keys[1]: labels[:, None], keys[0]: images}))
    assert np.array_equal(found.images, images.transpose(0, 3, 1, 2)) and found.images.dtype == np.uint8
    assert found.labels is not None and found.labels.tolist() == labels.tolist()
    assert _is_mapped(found.images) is not compressed
    assert extra.checked_extra(found, data.load_dataset("digits"), 0.3, 32) == replace(found, fraction=0.3)


def _is_mapped(array: np.ndarray) -> bool:
    while array is not None:
        if isinstance(array, np.memmap):
            return True
        array = array.base
    return False


def test_the_fingerprint_is_of_the_content_not_of_the_file(tmp_path: Path) -> None:
    images, labels = generated()
    found = [
        extra.load_extra(written(tmp_path / "a.npz", image=images, label=labels)),
        extra.load_extra(written(tmp_path / "b.npz", True, images=images.transpose(0, 3, 1, 2).copy(), labels=labels)),
        extra.load_extra(written(tmp_path / "c.npz", image=images, label=(labels + 1) % 10)),
        extra.load_extra(written(tmp_path / "d.npz", image=images)),
        extra.load_extra(
            written(tmp_path / "e.npz", image=images ^ (np.arange(50) == 49)[:, None, None, None], label=labels)
        ),
    ]
    prints = [one.fingerprint for one in found]
    assert prints[0] == prints[1] and len(set(prints)) == 4 and found[3].labels is None
    extra.load_extra.cache_clear()
    assert extra.load_extra(f"npz:{tmp_path / 'a.npz'}").fingerprint == prints[0]  # remembered
    written(tmp_path / "a.npz", image=images[:49], label=labels[:49])
    extra.load_extra.cache_clear()
    assert extra.load_extra(f"npz:{tmp_path / 'a.npz'}").fingerprint not in prints  # and found anew for another file


def test_any_dataset_gives_its_images(tmp_path: Path) -> None:
    images, _ = generated(60)
    name = written(tmp_path / "x.npz", images=images, labels=np.arange(60) % 10)
    parquet_like = data.load_dataset(name)
    extra.load_extra.cache_clear()
    digits = extra.load_extra("digits")
    assert len(digits.images) == 1797 and digits.fingerprint == data.load_dataset("digits").fingerprint
    assert "359 of its 1797 images are test images of digits, 289 validation images" in refusal("digits")
    renamed = replace(parquet_like, classes=tuple("9876543210"))
    reordered = replace(digits, classes=renamed.classes)
    with pytest.raises(CompressError, match="its classes stand in another order than those of digits"):
        extra.checked_extra(reordered, data.load_dataset("digits"), 0.5, 32)
    with pytest.raises(CompressError, match="2 classes, digits has 10"):
        extra.checked_extra(replace(digits, classes=("a", "b")), data.load_dataset("digits"), 0.5, 32)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"pictures": generated()[0]}, "has pictures; name the images image, images or x_train"),
        ({"image": generated()[0], "label": generated()[1][:9]}, "labels are int64 of shape (9,) for 50 images"),
        ({"image": generated()[0], "label": generated()[1] / 2}, "labels are float64"),
        ({"image": generated()[0], "label": np.arange(50)}, "image 10 has label 10, digits has classes 0…9"),
        ({"image": generated()[0], "label": np.arange(50) - 1}, "image 0 has label -1"),
        ({"image": generated(shape=(6, 8, 1))[0]}, "images (C,H,W) = (1, 6, 8), digits has (1, 8, 8)"),
        ({"image": generated(shape=(8, 8, 3))[0]}, "images (C,H,W) = (3, 8, 8), digits has (1, 8, 8)"),
        ({"image": generated()[0].astype(np.int32)}, "images are int32; save them as uint8"),
        ({"image": generated()[0][:0]}, "holds no image"),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path: Path, arrays: dict[str, np.ndarray], said: str) -> None:
    assert said in refusal(written(tmp_path / "x.npz", **arrays))


def test_files_that_are_no_archive_or_cut_short_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    assert "no such file" in refusal(f"npz:{path}")
    path.write_bytes(b"nothing")
    assert "no archive of arrays" in refusal(f"npz:{path}")
    images, labels = generated()
    for compressed in (False, True):
        name = written(path, compressed, image=images, label=labels)
        path.write_bytes(path.read_bytes()[:200] + path.read_bytes()[400:])
        assert f"extra {name}: cannot be read, damaged or cut short" in refusal(name)


@pytest.mark.parametrize("split", ["test", "val"])
def test_held_out_images_are_refused_with_their_count(tmp_path: Path, split: str) -> None:
    images, labels = generated()
    held = data.load_dataset("digits").part(split)[0].transpose(0, 2, 3, 1)
    images[[7, 20, 49]] = held[[0, 5, 5]]
    line = refusal(written(tmp_path / "x.npz", image=images, label=labels))
    counts = ("3", "0") if split == "test" else ("0", "3")
    assert f"{counts[0]} of its 50 images are test images of digits, {counts[1]} validation images" in line
    assert "the first is image 7" in line
    images[[7, 20, 49], 0, 0] ^= 1  # near is not equal
    fine = extra.load_extra(written(tmp_path / "y.npz", image=images, label=labels))
    extra.checked_extra(fine, data.load_dataset("digits"), 0.5, 32)


def test_images_that_only_share_a_checksum_are_not_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "checksums", lambda images: np.zeros(len(images), np.uint64))
    extra.checked_extra(
        extra.load_extra(written(tmp_path / "x.npz", image=generated()[0])), data.load_dataset("digits"), 0.5, 32
    )


@pytest.mark.parametrize(("fraction", "count"), [(0.01, 0), (0.99, 32)])
def test_a_share_that_leaves_one_kind_without_an_image_is_refused(tmp_path: Path, fraction: float, count: int) -> None:
    line = refusal(written(tmp_path / "x.npz", image=generated()[0]), fraction)
    assert f"extra.fraction {fraction}: of batches of 32 that is {count} images" in line


# ---------------------------------------------------------------------------------------------- batches


def supply(added: "ExtraImages | None", train: int = 100, size: int = 16) -> Supply:
    return Supply(Split.of(few(train), "train", CPU), size, 3, added)


def test_without_extra_images_an_epoch_is_one_order_of_the_training_split() -> None:
    plain = supply(None)
    seen = torch.cat([plain.chosen(2, step) for step in range(plain.steps)])
    assert plain.steps == 6 and torch.equal(seen, torch.randperm(100, generator=generator(3, "order", 2))[:96])
    assert torch.equal(plain.images(seen), plain.train.images[seen].float() / 255)
    assert torch.equal(plain.labels(seen), plain.train.labels[seen])


@pytest.mark.parametrize(("fraction", "added"), [(0.7, 11), (0.5, 8), (0.05, 1)])
def test_every_batch_has_exactly_its_share_and_no_image_comes_twice_before_all_have_come(
    fraction: float, added: int
) -> None:
    source = mixed(50, fraction)
    found = supply(source)
    assert found.steps == 6  # as many as without
    batches = [found.chosen(epoch, step) for epoch in range(30) for step in range(found.steps)]
    for chosen in batches:
        own, new = chosen[chosen < 100], chosen[chosen >= 100]
        assert (len(own), len(new)) == (16 - added, added) and torch.equal(chosen, torch.cat([own, new]))
        x, y = found.images(chosen), found.labels(chosen)
        assert torch.equal(x[: len(own)], found.train.images[own].float() / 255)
        assert torch.equal(x[len(own) :], floats(source, new - 100))
        assert y.tolist() == [*found.train.labels[own].tolist(), *source.labels[(new - 100).numpy()].tolist()]
    row = torch.cat(batches)
    for count, values in ((100, row[row < 100]), (50, row[row >= 100] - 100)):
        turns = values[: len(values) // count * count].view(-1, count)
        assert all(torch.equal(turn.sort().values, torch.arange(count)) for turn in turns)
        assert len(turns) < 2 or not torch.equal(turns[0], turns[1])


def test_batches_depend_on_seed_epoch_and_step_alone() -> None:
    one, other = supply(mixed()), supply(mixed())
    forward = {(epoch, step): one.chosen(epoch, step) for epoch in range(4) for step in range(6)}
    for at in reversed(forward):
        assert torch.equal(other.chosen(*at), forward[at])
    assert not torch.equal(Supply(one.train, 16, 4, mixed()).chosen(0, 0), forward[0, 0])


def test_fewer_extra_images_than_a_batch_takes_come_again() -> None:
    new = supply(mixed(4, 0.7)).chosen(0, 0)[5:] - 100
    assert sorted(new[:4].tolist()) == sorted(new[4:8].tolist()) == [0, 1, 2, 3] and len(new) == 11


def test_an_image_without_a_label_is_marked() -> None:
    found = supply(mixed(labels=False))
    labels = found.labels(found.chosen(0, 0))
    assert not found.labelled and (labels[5:] == -1).all() and (labels[:5] >= 0).all()


# ---------------------------------------------------------------------------------------------- training


class Seeing(PgdTraining):
    """Adversarial training that keeps its batches."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[TrainingBatch] = []

    def parts(self, student: Classifier, batch: TrainingBatch, x_adv: Tensor) -> dict[str, Tensor]:
        self.batches.append(batch)
        return super().parts(student, batch, x_adv)


def test_the_objective_sees_both_kinds_and_numbers_them_one_behind_the_other(tmp_path: Path) -> None:
    objective, source = Seeing(), mixed()
    train(tmp_path, fresh(), objective=objective, extra=source, epochs=1)
    (batch, *_) = objective.batches
    assert len(objective.batches) == 4 and batch.index is not None
    new = batch.index >= 128
    assert int(new.sum()) == round(0.7 * 32)
    assert batch.y[new].tolist() == source.labels[batch.index[new] - 128].tolist()
    assert torch.equal(batch.x[new], floats(source, batch.index[new] - 128))


def test_images_without_labels_get_the_teachers_for_them_as_they_are_seen(tmp_path: Path) -> None:
    objective, teacher = Seeing(), fresh(5).eval().requires_grad_(False)
    with torch.no_grad():  # so that it does not name one class alone
        teacher.linear.weight.mul_(50)
    train(tmp_path, fresh(), objective=objective, teacher=teacher, extra=mixed(labels=False), augment="crop-flip")
    truth = Split.of(few(), "train", CPU).labels
    for batch in objective.batches:
        assert batch.index is not None
        new = batch.index >= 128
        assert torch.equal(batch.y[~new], truth[batch.index[~new]])
        assert torch.equal(batch.y[new], teacher(batch.x).argmax(1)[new])
    assert len({int(y) for batch in objective.batches for y in batch.y[batch.index >= 128]}) > 1


@pytest.mark.parametrize("stops", [(3, 2), (6,)])
def test_a_stopped_run_with_extra_images_ends_in_the_same_bits(tmp_path: Path, stops: tuple[int, ...]) -> None:
    changes: dict[str, Any] = {"extra": mixed(), "augment": "crop-flip", "attack": {"steps": 1, "eps_warmup": 0.5}}
    whole, resumed = fresh(), fresh(seed=99)
    train(tmp_path / "whole", whole, **changes)
    for stop in stops:
        with pytest.raises(interrupt.Interrupted):
            train(tmp_path / "stopped", fresh(), objective=AtStep(stop, asked()), **changes)
    train(tmp_path / "stopped", resumed, **changes)
    assert same(whole.state_dict(), resumed.state_dict())
    assert [row["adversarial"] for row in rows(tmp_path / "whole")] == [
        row["adversarial"] for row in rows(tmp_path / "stopped")
    ]
    plain = fresh()
    train(tmp_path / "plain", plain, **{**changes, "extra": None})
    assert not same(whole.state_dict(), plain.state_dict())


def test_a_memory_of_images_has_room_for_both_kinds(tmp_path: Path) -> None:
    from compress.methods import registry

    student, teacher, clean = fresh(), fresh(5).eval().requires_grad_(False), [torch.rand(8, 1, 8, 8)]
    options = {"negatives": "bank", "bank_negatives": 16}
    objective = registry.build_objective("gacd", options, student, teacher, clean, images=128 + 50)
    before = objective.additions[0].bank.student.clone()
    train(tmp_path, student, objective=objective, teacher=teacher, extra=mixed())
    moved = (objective.additions[0].bank.student != before).any(1)
    assert moved[128:].all() and 0 < int(moved[:128].sum()) < 128  # 176 of them were shown, of 50; 80 of 128


def test_swa_finds_its_statistics_on_training_images_alone(tmp_path: Path) -> None:
    student = fresh()
    found = train(tmp_path, student, extra=mixed(), average="swa", swa_start=0.0)
    assert found["epochs"] == 2 and training.METRICS in {path.name for path in tmp_path.iterdir()}
    with torch.no_grad():
        clean = torch.cat([student.conv1(x) for x in Split.of(few(), "train", CPU).clean(32)])
    torch.testing.assert_close(student.bn1.running_mean, clean.mean((0, 2, 3)), atol=1e-5, rtol=1e-4)
