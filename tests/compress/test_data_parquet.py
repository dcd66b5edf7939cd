"""Parquet in Hugging Face's layout, written by pyarrow itself."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from compress import data
from compress.data.dataset import SPLITS
from tests.compress.data_files import encoded, pixels, refusal

NAMES = ["ant", "bee"]


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ROBUST_COMPRESS_CACHE", str(tmp_path / "cache"))
    data.load_dataset.cache_clear()


def write(path: Path, keys: range, image: str = "img", label: str = "label", **options: Any) -> Path:
    """One file of random images, labels k % 2; options: names, struct, labels."""
    cells: list[Any] = [encoded(pixels(k)) for k in keys]
    if options.get("struct", True):
        cells = [{"bytes": cell, "path": None} for cell in cells]
    table = pa.table({image: cells, label: options.get("labels", [k % 2 for k in keys])})
    if "names" in options:
        features = {"info": {"features": {label: {"names": options["names"], "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=7)
    return path


@pytest.mark.parametrize("inner", ["", "data", "plain_text"])
def test_parts_shards_and_class_names_are_found(tmp_path: Path, inner: str) -> None:
    folder = tmp_path / "d" / inner
    write(folder / "train-00000-of-00002-abc.parquet", range(20), names=NAMES)
    write(folder / "train-00001-of-00002-def.parquet", range(20, 40), names=NAMES)
    write(folder / "test-00000-of-00001.parquet", range(40, 50), names=NAMES)
    made = data.load_dataset(f"parquet:{tmp_path / 'd'}")
    assert made.classes == ("ant", "bee") and made.images.shape == (50, 3, 6, 6)
    for k in range(50):
        assert np.array_equal(made.images[k], pixels(k).transpose(2, 0, 1)) and made.labels[k] == k % 2
    assert made.splits["test"].tolist() == list(range(40, 50)) and len(made.splits["val"]) == 4


@pytest.mark.parametrize("image", ["img", "image"])
@pytest.mark.parametrize("label", ["label", "fine_label", "labels"])
@pytest.mark.parametrize("struct", [True, False])
def test_one_file_under_each_name_of_its_columns(tmp_path: Path, image: str, label: str, struct: bool) -> None:
    made = data.load_dataset(f"parquet:{write(tmp_path / 'x.parquet', range(50), image, label, struct=struct)}")
    assert np.array_equal(made.images[7], pixels(7).transpose(2, 0, 1)) and made.classes == ("0", "1")
    assert [len(made.splits[name]) for name in SPLITS] == [32, 8, 10]


def test_a_validation_file_is_the_validation_split(tmp_path: Path) -> None:
    for k, part in enumerate(("train", "validation", "test")):
        write(tmp_path / "d" / f"{part}.parquet", range(k * 10, k * 10 + 10))
    made = data.load_dataset(f"parquet:{tmp_path / 'd'}")
    assert [made.splits[name].tolist() for name in SPLITS] == [[*range(k * 10, k * 10 + 10)] for k in range(3)]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"image": "picture"}, "no image column (has picture, label)"),
        ({"label": "kind"}, "no label column (has img, kind)"),
        ({"labels": ["a", "b"] * 25}, "something other than integers"),
        ({"labels": [0, None] * 25}, "something other than integers"),
        ({"labels": [0, -1] * 25}, "label -1, outside"),
        ({"labels": [0] * 50}, "one class"),
        ({"labels": [0, 1, 2, 3, 4] * 10, "names": NAMES}, "label 2, outside 0…1"),
    ],
)
def test_wrong_columns_are_refused(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    assert says in refusal(f"parquet:{write(tmp_path / 'x.parquet', range(50), **options)}")


def test_rows_without_an_image_or_with_a_broken_one_are_refused(tmp_path: Path) -> None:
    cells = [encoded(pixels(k)) for k in range(20)]
    for odd, says in ((None, "no image bytes in some row"), (b"GIF89a", "image 3: not a readable image")):
        pq.write_table(
            pa.table({"img": [*cells[:3], odd, *cells[4:]], "label": [0, 1] * 10}), tmp_path / f"{says}.parquet"
        )
        assert says in refusal(f"parquet:{tmp_path / says}.parquet")


def test_files_cut_short_missing_or_in_two_folders_are_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "d" / "train.parquet", range(20))
    write(tmp_path / "d" / "other" / "test.parquet", range(20))
    line = refusal(f"parquet:{tmp_path / 'd'}")
    assert str(tmp_path / "d") in line and str(tmp_path / "d" / "other") in line
    file.write_bytes(file.read_bytes()[:-20])
    assert f"{file}: cannot be read" in refusal(f"parquet:{file}")
    (tmp_path / "empty").mkdir()
    assert "no train-*.parquet" in refusal(f"parquet:{tmp_path / 'empty'}")
    assert "no such file or folder" in refusal(f"parquet:{tmp_path / 'no'}")


def test_without_pyarrow_the_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "x.parquet", range(20))
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # as Python marks a package that cannot be imported
    monkeypatch.delitem(sys.modules, "pyarrow.parquet")
    assert 'pip install "robust-compress[parquet]"' in refusal(f"parquet:{file}")


def test_images_of_different_sizes_need_the_option_and_are_made_one_size_by_it(tmp_path: Path) -> None:
    cells = [encoded(pixels(k, (6, 6 + k % 3, 3))) for k in range(40)]
    pq.write_table(pa.table({"image": cells, "label": [0, 1] * 20}), tmp_path / "x.parquet")
    line = refusal(f"parquet:{tmp_path / 'x.parquet'}")
    assert "6×6" in line and "7×6" in line and f"parquet:{tmp_path / 'x.parquet'}?size=N" in line
    assert data.load_dataset(f"parquet:{tmp_path / 'x.parquet'}?size=5").images.shape == (40, 3, 5, 5)
