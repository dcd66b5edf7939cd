"""Parquet files in Hugging Face's layout: encoded images and integer labels, `train-*`, `test-*`, `validation-*`."""

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from compress.data.cache import cached_dataset
from compress.data.dataset import SPLITS, Dataset, assemble_dataset
from compress.data.decode import decode_images, size_option, split_option
from compress.data.files import existing_path, read_safely
from compress.data.listing import as_text, left_out, list_files
from compress.data.parts import PARTS, sounds_like_part
from edge.core.errors import CompressError

KIND = "parquet"
IMAGE_COLUMNS = ("img", "image")
LABEL_COLUMNS = ("label", "fine_label", "labels")
ROWS = 512  # rows read at once


def parquet(path: str) -> Dataset:
    """The dataset of `parquet:PATH` or `parquet:PATH?size=N`: a file (split 64/16/20) or a folder of files by part."""
    path, options = split_option(KIND, path)
    root, where, size = existing_path(KIND, path), f"{KIND}:{path}", size_option(options)
    parts, notes = _files(root, where)
    files = [file for part in parts.values() for file in part]
    return cached_dataset(KIND, f"{size}", root, files, lambda: _read(parts, where, size)).with_notes(notes)


def _files(root: Path, where: str) -> tuple[dict[str, list[Path]], list[str]]:
    """The files of each part, in the order of their names, and what is not taken."""
    if root.is_file():
        beside = sorted(file.name for file in root.parent.glob("*.parquet") if file.name != root.name)
        return {"train": [root]}, left_out("beside this one", beside, "parquet file")
    listing = list_files(root)
    parts: dict[str, list[Path]] = {}
    others = []
    for file in (root / name for name in listing.files if name.endswith(".parquet")):
        part = PARTS.get(file.name.partition("-")[0].removesuffix(".parquet"))
        if part:
            parts.setdefault(part, []).append(file)
        else:
            others.append(file.name)
    if not parts:
        raise CompressError(f"{where}: no train-*.parquet or test-*.parquet in it; give the folder that holds them")
    if asked := [name for name in others if sounds_like_part(name)]:
        raise CompressError(
            f"{where}: {asked[0]} sounds like a part of the data and is none that is known; rename it train-*, "
            f"validation-* or test-*, or move it away"
        )
    folders = sorted({str(file.parent) for part in parts.values() for file in part})
    if len(folders) > 1:
        raise CompressError(f"{where}: parquet files in {folders[0]} and in {folders[1]}; give one of these folders")
    for part, files in parts.items():
        if len(prefixes := sorted({re.split(r"[-.]", file.name)[0] for file in files})) > 1:
            raise CompressError(
                f"{where}: {prefixes[0]}-* and {prefixes[1]}-* are both the {part} part; keep one of them"
            )
        _refuse_missing_shards(files, where)
    notes = left_out("of no part", others, "parquet file")
    return {part: parts[part] for part in SPLITS if part in parts}, [*listing.notes, *notes]


def _refuse_missing_shards(files: list[Path], where: str) -> None:
    """`train-00000-of-00002` announces a second file."""
    shards = [found for file in files if (found := re.match(r"(.+)-(\d+)-of-(\d+)", file.name))]
    for stem, _, total in {shard.groups() for shard in shards}:
        there = {int(shard[2]) for shard in shards if (shard[1], shard[3]) == (stem, total)}
        if missing := sorted(set(range(int(total))) - there):
            raise CompressError(
                f"{where}: {stem}-{missing[0]:05}-of-{total} is missing, {len(there)} of {int(total)} files are there; "
                f"fetch the others"
            )


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
            named = as_text(str(file)) == str(file)  # pyarrow opens no other
            tables[file] = pq.ParquetFile(file if named else io.BytesIO(file.read_bytes()))
    counts = {part: sum(tables[file].metadata.num_rows for file in files) for part, files in parts.items()}
    labels: list[np.ndarray] = []

    def entries() -> Iterator[tuple[int, str, bytes]]:
        place = 0
        for file, table in tables.items():
            for encoded, numbers in _rows(file, table):
                labels.append(numbers)
                for row in encoded:
                    yield place, f"image {place}", row
                    place += 1

    images, notes = decode_images(entries(), sum(counts.values()), size, where)
    ends = dict(zip(counts, np.cumsum(list(counts.values())), strict=True))
    official = {part: np.arange(ends[part] - count, ends[part]) for part, count in counts.items()}
    classes, columns = _classes(tables), _columns(*next(iter(tables.items())), "test" not in parts)
    return assemble_dataset(KIND, where, images, np.concatenate(labels), official, classes, notes=[columns, *notes])


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


def _columns(file: Path, table: Any, asked: bool) -> str:
    """Which columns are read; `asked`: the file names no test part, so one that does must not be left out."""
    image, label = _column(file, table, IMAGE_COLUMNS, "image"), _column(file, table, LABEL_COLUMNS, "label")
    others = [name for name in table.schema_arrow.names if name not in (image, label)]
    if asked and (parts := [name for name in others if sounds_like_part(name)]):
        raise CompressError(
            f"{file}: column {parts[0]!r} would not be read; write each part to its own file, train-* and test-* in "
            f"one folder, or drop the column"
        )
    return f"read from columns {image!r} and {label!r}" + (f"; left out: {', '.join(others)}" if others else "")


def _classes(tables: dict[Path, Any]) -> "list[str] | None":
    """The label's class names that Hugging Face writes into the schema; None without them."""
    named = {file: _class_names(table, file) for file, table in tables.items()}
    first, classes = next(iter(named.items()))
    for file, names in named.items():
        if names != classes:
            raise CompressError(
                f"{file}: its classes are {_short(names)}, those of {first.name} {_short(classes)}; write both files "
                f"with the same class names in the same order"
            )
    return classes


def _short(names: "list[str] | None") -> str:
    return "without names" if names is None else f"{', '.join(names[:3])}{', …' * (len(names) > 3)} ({len(names)})"


def _class_names(table: Any, file: Path) -> "list[str] | None":
    label = _column(file, table, LABEL_COLUMNS, "label")
    try:
        features = json.loads((table.schema_arrow.metadata or {})[b"huggingface"])["info"]["features"]
        return [str(name) for name in features[label]["names"]]
    except (KeyError, TypeError, ValueError):
        return None
