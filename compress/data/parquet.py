"""Parquet files in Hugging Face's layout: encoded images and integer labels, `train-*`, `test-*`, `validation-*`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from compress.data.cache import cached_dataset
from compress.data.dataset import SPLITS, Dataset, assemble_dataset
from compress.data.decode import decode_images, split_option
from compress.data.files import existing_path, read_safely
from edge.core.errors import CompressError

KIND = "parquet"
IMAGE_COLUMNS = ("img", "image")
LABEL_COLUMNS = ("label", "fine_label", "labels")
PARTS = {"train": "train", "validation": "val", "valid": "val", "val": "val", "test": "test"}
ROWS = 512  # rows read at once


def parquet(path: str) -> Dataset:
    """The dataset of `parquet:PATH` or `parquet:PATH?size=N`: a file (split 64/16/20) or a folder of files by part."""
    path, size = split_option(KIND, path)
    root, where = existing_path(KIND, path), f"{KIND}:{path}"
    parts = _files(root, where)
    files = [file for part in parts.values() for file in part]
    return cached_dataset(KIND, f"{size}", root, files, lambda: _read(parts, where, size))


def _files(root: Path, where: str) -> dict[str, list[Path]]:
    """The files of each part, in the order of their names."""
    if root.is_file():
        return {"train": [root]}
    parts: dict[str, list[Path]] = {}
    for file in sorted(root.rglob("*.parquet")):
        part = PARTS.get(file.name.partition("-")[0].removesuffix(".parquet"))
        if part:
            parts.setdefault(part, []).append(file)
    if not parts:
        raise CompressError(f"{where}: no train-*.parquet or test-*.parquet in it; give the folder that holds them")
    folders = sorted({str(file.parent) for part in parts.values() for file in part})
    if len(folders) > 1:
        raise CompressError(f"{where}: parquet files in {folders[0]} and in {folders[1]}; give one of these folders")
    return {part: parts[part] for part in SPLITS if part in parts}


def _read(parts: dict[str, list[Path]], where: str, size: "int | None") -> Dataset:
    try:
        import pyarrow.parquet as pq  # type: ignore[import-untyped]
    except ImportError:
        raise CompressError(
            f'{where}: reading parquet needs pyarrow; run: pip install "robust-compress[parquet]"'
        ) from None
    tables: dict[Path, Any] = {}
    for file in (file for part in parts.values() for file in part):
        with read_safely(file):
            tables[file] = pq.ParquetFile(file)
    counts = {part: sum(tables[file].metadata.num_rows for file in files) for part, files in parts.items()}
    labels: list[np.ndarray] = []

    def entries() -> Iterator[tuple[int, str, bytes]]:
        place = 0
        for file, table in tables.items():
            for encoded, numbers in _rows(file, table):
                labels.append(numbers)
                for row in encoded:
                    yield place, f"{where}: image {place}", row
                    place += 1

    images = decode_images(entries(), sum(counts.values()), size, where)
    ends = dict(zip(counts, np.cumsum(list(counts.values())), strict=True))
    official = {part: np.arange(ends[part] - count, ends[part]) for part, count in counts.items()}
    first, table = next(iter(tables.items()))
    return assemble_dataset(KIND, where, images, np.concatenate(labels), official, _classes(table, first))


def _rows(file: Path, table: Any) -> Iterator[tuple[list[bytes], np.ndarray]]:
    """Encoded images and int64 labels of one file, some rows at a time."""
    image, label = _column(file, table, IMAGE_COLUMNS, "image"), _column(file, table, LABEL_COLUMNS, "label")
    with read_safely(file):
        for batch in table.iter_batches(ROWS, columns=[image, label]):
            cells, numbers = batch.column(image).to_pylist(), batch.column(label).to_pylist()
            contents = [cell.get("bytes") if isinstance(cell, dict) else cell for cell in cells]
            encoded = [content for content in contents if isinstance(content, bytes)]
            if len(encoded) < len(contents):
                raise CompressError(f"{file}: column {image!r} holds no image bytes in some row; embed the images")
            if not all(type(number) is int for number in numbers):
                raise CompressError(f"{file}: column {label!r} holds something other than integers; number the classes")
            yield encoded, np.array(numbers, dtype=np.int64)


def _column(file: Path, table: Any, wanted: tuple[str, ...], what: str) -> str:
    names = table.schema_arrow.names
    for name in wanted:
        if name in names:
            return str(name)
    raise CompressError(f"{file}: no {what} column (has {', '.join(names)}); name it {' or '.join(wanted)}")


def _classes(table: Any, file: Path) -> "list[str] | None":
    """The label's class names that Hugging Face writes into the schema; None without them."""
    label = _column(file, table, LABEL_COLUMNS, "label")
    try:
        features = json.loads((table.schema_arrow.metadata or {})[b"huggingface"])["info"]["features"]
        return [str(name) for name in features[label]["names"]]
    except (KeyError, TypeError, ValueError):
        return None
