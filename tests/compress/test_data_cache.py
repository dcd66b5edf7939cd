"""The cache: a second load decodes nothing, a changed source or a damaged entry decodes anew, none is needed."""

import multiprocessing
import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from compress import data
from compress.data.cache import cache_home, cached_dataset
from compress.data.dataset import SPLITS, Dataset
from tests.compress.data_files import encoded, pack, pixels, tree


@pytest.fixture
def where(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The cache's folder, empty."""
    monkeypatch.setenv("ROBUST_COMPRESS_CACHE", str(tmp_path / "cache"))
    data.load_dataset.cache_clear()
    return tmp_path / "cache"


def again(name: str) -> Dataset:
    data.load_dataset.cache_clear()
    return data.load_dataset(name)


def refuse() -> Dataset:
    raise AssertionError("decoded again")


def made_of(images: np.ndarray) -> Dataset:
    parts = {name: np.arange(k, len(images), 3) for k, name in enumerate(SPLITS)}
    return Dataset("npz", images, np.arange(len(images)) % 2, parts, ("a", "b"))


def same(a: Dataset, b: Dataset) -> None:
    assert a.as_plan() == b.as_plan() and a.classes == b.classes
    assert np.array_equal(a.images, b.images) and np.array_equal(a.labels, b.labels)
    for name in SPLITS:
        assert np.array_equal(a.splits[name], b.splits[name]) and b.splits[name].dtype == np.int64


def test_the_second_load_is_the_same_and_does_not_decode(where: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x")
    whole = made_of(pixels(1, (30, 3, 4, 4)))
    first = cached_dataset("npz", "", source, [source], lambda: whole)
    second = cached_dataset("npz", "", source, [source], refuse)
    same(first, whole)
    same(second, whole)
    fresh = Dataset("npz", np.array(second.images), second.labels, second.splits, second.classes)
    assert second.fingerprint == fresh.fingerprint and second.split_hash == fresh.split_hash


def test_what_comes_from_the_cache_goes_to_torch_without_a_warning(where: Path, tmp_path: Path) -> None:
    name = f"imagefolder:{pack(tree(), tmp_path / 'd', 'folder')}"
    for dataset in (data.load_dataset(name), again(name)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            tensor = torch.from_numpy(dataset.images)
        tensor += 1  # on a private copy of the page
    same(again(name), again(name))
    assert np.array_equal(again(name).images[0], pixels(0).transpose(2, 0, 1))


def test_a_changed_source_is_decoded_again(where: Path, tmp_path: Path) -> None:
    folder = pack(tree(), tmp_path / "d", "folder")
    name = f"imagefolder:{folder}"
    first = data.load_dataset(name)
    file = folder / "train" / "ant" / "0.png"
    file.write_bytes(encoded(pixels(77)))
    assert np.array_equal(again(name).images[0], pixels(77).transpose(2, 0, 1))
    (folder / "train" / "ant" / "more.png").write_bytes(encoded(pixels(78)))
    assert len(again(name).images) == len(first.images) + 1
    (folder / "train" / "ant" / "more.png").unlink()
    assert len(again(name).images) == len(first.images)


def test_either_the_time_or_the_size_of_a_source_tells_that_it_changed(where: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    made = []
    for content, time in ((b"x", 5), (b"x", 5), (b"y", 6), (b"xx", 6), (b"yy", 6)):
        source.write_bytes(content)
        os.utime(source, ns=(time, time))
        cached_dataset("npz", "", source, [source], lambda: made.append(1) or made_of(pixels(len(made), (30, 3, 4, 4))))  # type: ignore[func-returns-value]
    assert len(made) == 3


def test_options_and_kinds_have_their_own_entries(where: Path, tmp_path: Path) -> None:
    source = pack(tree(), tmp_path / "d", "zip")
    whole, small = data.load_dataset(f"imagefolder:{source}"), data.load_dataset(f"imagefolder:{source}?size=4")
    assert whole.images.shape[2:] == (6, 6) and small.images.shape[2:] == (4, 4)
    same(again(f"imagefolder:{source}"), whole)


def test_the_same_content_from_two_places_is_kept_once(where: Path, tmp_path: Path) -> None:
    for place in ("a", "b"):
        data.load_dataset(f"imagefolder:{pack(tree(), tmp_path / place, 'folder')}")
    assert len(list((where / "entries").iterdir())) == 1 and len(list((where / "sources").iterdir())) == 2


def test_the_same_images_with_another_split_are_another_entry(where: Path, tmp_path: Path) -> None:
    for name, split in (("x", ["train", "train", "val", "test"]), ("y", ["val", "test", "train", "train"])):
        images, labels = pixels(1, (40, 4, 4)), np.arange(40) // 4 % 2
        np.savez(tmp_path / f"{name}.npz", images=images, labels=labels, split=np.array(split * 10))
    x, y = data.load_dataset(f"npz:{tmp_path / 'x.npz'}"), data.load_dataset(f"npz:{tmp_path / 'y.npz'}")
    assert x.fingerprint == y.fingerprint and x.split_hash != y.split_hash
    assert x.splits["test"].tolist() == list(range(3, 40, 4)) and y.splits["test"].tolist() == list(range(1, 40, 4))


@pytest.mark.parametrize("file", ["images.npy", "labels.npy", "train.npy", "val.npy", "test.npy", "meta.json"])
@pytest.mark.parametrize("damage", ["cut", "longer", "gone", "empty"])
def test_a_damaged_entry_is_found_and_made_again(where: Path, tmp_path: Path, file: str, damage: str) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x")
    whole = made_of(pixels(1, (30, 3, 4, 4)))
    cached_dataset("npz", "", source, [source], lambda: whole)
    (entry,) = (where / "entries").iterdir()
    content = (entry / file).read_bytes()
    if damage == "gone":
        (entry / file).unlink()
    else:
        changed = {"cut": content[:-9], "longer": content + b"x", "empty": b""}[damage]
        (entry / file).write_bytes(changed)
    made = []
    same(cached_dataset("npz", "", source, [source], lambda: made.append(1) or whole), whole)  # type: ignore[func-returns-value]
    assert made == [1]
    same(cached_dataset("npz", "", source, [source], refuse), whole)
    assert [path.name for path in (where / "entries").iterdir()] == [entry.name]


def test_a_source_file_that_points_nowhere_is_written_anew(where: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x")
    whole = made_of(pixels(1, (30, 3, 4, 4)))
    for content in (b"", b"../..", b"\xff\xfe", b"a\0b", b"no such entry"):
        cached_dataset("npz", "", source, [source], lambda: whole)
        (pointer,) = (where / "sources").iterdir()
        pointer.write_bytes(content)
        same(cached_dataset("npz", "", source, [source], lambda: whole), whole)
        same(cached_dataset("npz", "", source, [source], refuse), whole)


def test_a_removed_cache_and_one_that_cannot_be_written_change_nothing(where: Path, tmp_path: Path) -> None:
    name = f"imagefolder:{pack(tree(), tmp_path / 'd', 'folder')}"
    first = data.load_dataset(name)
    whole = Dataset(first.name, np.array(first.images), first.labels, first.splits, first.classes)
    shutil.rmtree(where)
    same(again(name), whole)
    shutil.rmtree(where)
    where.write_text("a file where the folder should be")  # holds for root too, unlike a mode
    same(again(name), whole)


def _load(name: str) -> dict[str, str]:
    return data.load_dataset(name).as_plan()


def test_processes_that_load_at_once_leave_one_entry(where: Path, tmp_path: Path) -> None:
    name = f"imagefolder:{pack(tree(), tmp_path / 'd', 'folder')}"
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        plans = pool.map(_load, [name] * 4, chunksize=1)
    assert all(plan == plans[0] for plan in plans) and data.load_dataset(name).as_plan() == plans[0]
    assert sum(1 for _ in (where / "entries").iterdir()) == sum(1 for _ in (where / "sources").iterdir()) == 1


def test_the_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ROBUST_COMPRESS_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_home() == tmp_path / ".cache" / "robust-compress"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_home() == tmp_path / "xdg" / "robust-compress"
    monkeypatch.setenv("ROBUST_COMPRESS_CACHE", "~/own")
    assert cache_home() == tmp_path / "own"
