"""Arrays, tables, official archives and extra images: what is taken and what is not, and what is asked about."""

import json
import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from compress import data
from compress.data import cifar as source
from compress.data import extra
from compress.data.dataset import assemble_dataset
from edge.core.errors import CompressError
from tests.compress.data_files import encoded, pack, pixels, refusal

X, Y = pixels(1, (40, 5, 6, 3)), np.arange(40) % 4
KERAS = {"x_train": X, "y_train": Y, "x_test": X[:8] ^ 1, "y_test": Y[:8]}


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ROBUST_COMPRESS_CACHE", str(tmp_path / "cache"))
    data.load_dataset.cache_clear()
    extra.load_extra.cache_clear()


def npz(path: Path, **arrays: Any) -> str:
    np.savez(path, **arrays)
    return f"npz:{path}"


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"images": X, "labels": Y}, "images of shape (40, 5, 6, 3) are read as (N,H,W,C)"),
        ({"images": X.transpose(0, 3, 1, 2), "labels": Y}, "images of shape (40, 3, 5, 6) are read as (N,C,H,W)"),
        ({"images": X[..., 0], "labels": Y}, "images of shape (40, 5, 6) are read as (N,H,W), one channel"),
        (
            {"images": np.float32(X) / np.float32(255), "labels": Y},
            "float32 images k/255 are taken as the levels k, 0…255",
        ),
        ({"images": X, "labels": Y, "names": Y, "fold": Y}, "left out: arrays names, fold"),
        (KERAS | {"images": X}, "left out: arrays images"),
        ({"images": X // 16, "labels": Y}, "the brightest pixel is 15 of 255; are these 8-bit images?"),
        (
            {"images": X, "labels": Y},
            "40 images 3×5×6 in 4 classes (0, 1, 2, …): train 24, val 8, test 8 (split 64/16/20, ",
        ),
    ],
)
def test_an_archive_says_how_it_was_read(tmp_path: Path, arrays: dict[str, Any], says: str) -> None:
    notes = data.load_dataset(npz(tmp_path / "a.npz", **arrays)).notes
    assert [note for note in notes if note.startswith(says)]


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        (KERAS | {"x_valid": X, "y_valid": Y}, "x_valid would be left out beside x_train, y_train, x_test, y_test"),
        (KERAS | {"x_val": X}, "x_val would be left out"),
        ({"images": X, "labels": Y, "test_images": X}, "test_images would be left out beside images, labels"),
        ({"images": X, "labels": np.eye(4, dtype=np.uint8)[Y]}, "where a row is one-hot, save labels.argmax(1)"),
        ({"images": X, "labels": Y + 1}, "class '0' has no training image"),
        ({"images": X, "labels": Y, "classes": ["a", "b", "a", "c"]}, "two classes are called 'a'"),
        ({"images": X, "labels": Y, "classes": np.array([b"caf\xe9", b"b", b"c", b"d"])}, "which is not UTF-8"),
    ],
)
def test_an_archive_that_is_nearly_one_is_asked_about(tmp_path: Path, arrays: dict[str, Any], says: str) -> None:
    assert says in refusal(npz(tmp_path / "a.npz", **arrays))


def test_class_names_in_bytes_are_text(tmp_path: Path) -> None:
    classes = np.array(["café".encode(), b"b", b"c", b"d"])
    assert data.load_dataset(npz(tmp_path / "a.npz", images=X, labels=Y, classes=classes)).classes == ("café", *"bcd")


# --------------------------------------------------------------------------------------------------------- parquet


def table(path: Path, keys: range, names: "list[str] | None" = None, **columns: Any) -> Path:
    cells = [{"bytes": encoded(pixels(k)), "path": None} for k in keys]
    made = pa.table({"img": cells, "label": [k % 2 for k in keys]} | {name: [0] * len(keys) for name in columns})
    if names:
        features = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
        made = made.replace_schema_metadata({"huggingface": json.dumps(features)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(made, path)
    return path


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """A folder of two shards and a test file."""
    for k in (0, 1):
        table(tmp_path / "d" / f"train-0000{k}-of-00002.parquet", range(20 * k, 20 * k + 20), coarse=1)
    table(tmp_path / "d" / "test-00000-of-00001.parquet", range(40, 50), coarse=1)
    return tmp_path / "d"


def test_a_folder_whose_name_is_not_utf8_is_read(hub: Path) -> None:
    whole = data.load_dataset(f"parquet:{hub}")
    odd = hub.rename(hub.parent / os.fsdecode(b"caf\xe9"))
    assert data.load_dataset(f"parquet:{odd}").as_plan() == whole.as_plan()


def test_columns_and_files_that_are_not_read_are_said(hub: Path) -> None:
    table(hub / ".cache" / "train-00000-of-00001.parquet", range(3))
    table(hub / "labels.parquet", range(3))
    made = data.load_dataset(f"parquet:{hub}")
    assert len(made.images) == 50 and set(made.notes[1:]) == {
        "read from columns 'img' and 'label'; left out: coarse",
        "left out, hidden or of a tool: 1 file (.cache 1)",
        "left out, of no part: 1 parquet file (labels.parquet)",
    }
    alone = data.load_dataset(f"parquet:{hub / 'test-00000-of-00001.parquet'}")
    assert alone.notes[-1].startswith("left out, beside this one: 3 parquet files (labels.parquet)")


def test_a_column_that_names_the_parts_is_not_left_out(tmp_path: Path) -> None:
    file = table(tmp_path / "whole.parquet", range(40), split=1)
    assert "column 'split' would not be read; write each part to its own file" in refusal(f"parquet:{file}")


def test_a_missing_shard_another_part_and_other_class_names_are_refused(hub: Path) -> None:
    table(hub / "dev-00000-of-00001.parquet", range(60, 64))
    assert "dev-00000-of-00001.parquet sounds like a part of the data" in refusal(f"parquet:{hub}")
    (hub / "dev-00000-of-00001.parquet").unlink()
    for name in ("valid.parquet", "validation-00000-of-00001.parquet"):
        table(hub / name, range(60, 64))
    assert "valid-* and validation-* are both the val part" in refusal(f"parquet:{hub}")
    (hub / "valid.parquet").unlink()
    first = hub / "train-00000-of-00002.parquet"
    first.rename(hub.parent / "kept")
    assert "train-00000-of-00002 is missing, 1 of 2 files are there" in refusal(f"parquet:{hub}")
    table(first, range(20), names=["ant", "bee"])
    assert "its classes are without names, those of train-00000-of-00002.parquet ant, bee (2)" in refusal(
        f"parquet:{hub}"
    )
    for file in (*hub.glob("*.parquet"),):
        table(file, range(20), names=["bee", "ant"] if file.name.startswith("test") else ["ant", "bee"])
    assert "its classes are bee, ant (2), those of train-0" in refusal(f"parquet:{hub}")


# ------------------------------------------------------------------------------------------- CIFAR, MNIST, extra


def cifar() -> dict[str, bytes]:
    def batch(key: int) -> bytes:
        return pickle.dumps({b"labels": [k % 10 for k in range(20)], b"data": pixels(key, (20, 3072))})

    names = {b"label_names": [b"c%d" % k for k in range(10)]}
    files = {f"data_batch_{k}": batch(k) for k in range(1, 6)} | {
        "test_batch": batch(9),
        "batches.meta": pickle.dumps(names),
    }
    return {f"{source.CIFAR10.folder}/{name}": content for name, content in files.items()}


def test_cifar_says_what_lies_beside_it_and_refuses_a_second_copy(tmp_path: Path) -> None:
    more = {f"{source.CIFAR10.folder}/{name}": b"" for name in ("data_batch_6", "readme.html", ".DS_Store")}
    folder = data.load_dataset(f"cifar10:{pack(cifar() | more, tmp_path / 'd', 'folder')}")
    assert "left out, not of the release: 1 file (data_batch_6)" in folder.notes
    twice = cifar() | {f"old/{name}": content for name, content in cifar().items()}
    line = refusal(f"cifar10:{pack(twice, tmp_path / 'd', 'tar')}")
    assert "cifar-10-batches-py/batches.meta and old/cifar-10-batches-py/batches.meta are both there" in line


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"image": X, "label": Y}, ["40 images from image, labels from label"]),
        ({"images": X}, ["40 images from images, no labels"]),
        (
            {"images": X, "labels": Y, "index": Y},
            ["40 images from images, labels from labels", "left out: arrays index"],
        ),
    ],
)
def test_extra_images_say_what_was_taken(
    tmp_path: Path, arrays: dict[str, Any], says: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    name = npz(tmp_path / "x.npz", **arrays)
    for _ in range(2):
        assert [*extra.load_extra(name).notes] == says
    assert capsys.readouterr().err == "".join(f"extra {name}: {note}\n" for note in says)


def test_labels_under_another_name_are_not_dropped(tmp_path: Path) -> None:
    with pytest.raises(CompressError, match="the labels of image are called label, not labels; rename them"):
        extra.load_extra(npz(tmp_path / "x.npz", image=X, labels=Y))


def test_extra_images_of_other_classes_and_of_the_training_split_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = assemble_dataset("own", "own", np.moveaxis(X, 3, 1), Y, {}, ["ant", "bee", "cat", "dog"])
    added = extra.load_extra(npz(tmp_path / "x.npz", image=np.r_[X ^ 1, X[dataset.splits["train"][:3]]]))
    capsys.readouterr()
    extra.checked_extra(replace(added, classes=("ant", "bee", "cow", "dog")), dataset, 0.5, 8)
    assert capsys.readouterr().err == (
        f"extra {added.name}: 1 of 4 classes are called otherwise in own ('cow' there 'cat'): taken by their numbers\n"
        f"extra {added.name}: 3 of its 43 images are training images of own\n"
    )
    with pytest.raises(CompressError, match="another order than those of own \\('bee' is number 0, there 1\\)"):
        extra.checked_extra(replace(added, classes=("bee", "ant", "cow", "dog")), dataset, 0.5, 8)
