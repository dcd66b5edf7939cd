"""Datasets that are arrays already: scikit-learn's digits, MNIST's IDX files, a NumPy archive.

digits: 1,797 real handwritten digits of 8×8 pixels with 17 grey levels.
idx (LeCun et al. 1998): two files of images and two of labels, plain or gzip. Two zero bytes, a type code (8: unsigned
byte), the number of dimensions, each dimension as a big-endian uint32, then the values. Test images are named t10k.
npz: x_train, y_train, x_test, y_test (as Keras keeps them; x_val, y_val too), or images and labels. With `images` an
array `split` of "train", "val", "test" may say where each belongs. An array `classes` names them. Images are uint8
(N,H,W,C), (N,C,H,W) or (N,H,W), or floats k/255.
"""

import gzip
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from compress.data.cache import cached_dataset
from compress.data.dataset import SHARES, SPLITS, Dataset, assemble_dataset, stratified_split
from compress.data.files import existing_path, read_safely
from compress.data.listing import left_out, list_files
from compress.data.parts import sounds_like_part
from edge.core.errors import CompressError

#: Number of dimensions of MNIST's files, by stem.
FILES = {"train-images": 3, "train-labels": 1, "t10k-images": 3, "t10k-labels": 1}
BYTE = 8
CHANNELS = (1, 3)
CHUNK = 1024  # images compared with the grid at once


def digits(path: None = None) -> Dataset:
    """The whole of scikit-learn's digits, which have no path; 0…16 are put on the 8-bit grid (level 16 is 255)."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise CompressError("data digits: scikit-learn is not installed; run: pip install scikit-learn") from None
    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[:, None]
    labels = bunch.target.astype(np.int64)
    return Dataset("digits", images, labels, stratified_split(images, labels, SHARES), tuple("0123456789"))


def idx(path: str) -> Dataset:
    """The dataset of `idx:PATH`, a folder."""
    root, where = existing_path("idx", path), f"idx:{path}"
    files = [_file(root, stem, ndim, where) for stem, ndim in FILES.items()]
    listing, taken = list_files(root, deep=False), {file.name for file in files}
    notes = left_out("none of the four", [name for name in listing.files if name not in taken])
    notes += left_out("not looked into", listing.folders, "folder")
    return cached_dataset("idx", "", root, files, lambda: _read(files, where)).with_notes([*listing.notes, *notes])


def read_idx(path: Path, ndim: int) -> np.ndarray:
    """The uint8 array of one file, which must have that many dimensions."""
    with read_safely(path):
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    magic = bytes([0, 0, BYTE, ndim])
    if content[:4] != magic:
        raise CompressError(
            f"{path}: starts with {content[:4].hex(' ')}, an IDX file of {ndim} dimensions with {magic.hex(' ')}; "
            f"use MNIST's own file"
        )
    header = 4 + 4 * ndim
    shape = struct.unpack(f">{ndim}I", content[4:header].ljust(4 * ndim, b"\0"))
    want = header + int(np.prod(shape, dtype=object))
    if len(content) != want:
        raise CompressError(f"{path}: has {len(content)} bytes, its header announces {want}; fetch the file again")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _file(root: Path, stem: str, ndim: int, where: str) -> Path:
    names = [f"{stem}{mark}idx{ndim}-ubyte{gz}" for mark in "-." for gz in ("", ".gz")]
    for name in names:
        if (root / name).is_file():
            return root / name
    raise CompressError(f"{where}: {names[0]} is missing, plain or .gz; give the folder that holds MNIST's four files")


def _read(files: list[Path], where: str) -> Dataset:
    x, y, x_test, y_test = (read_idx(file, ndim) for file, ndim in zip(files, FILES.values(), strict=True))
    if x.shape[1:] != x_test.shape[1:]:
        raise CompressError(f"{where}: training images are {x.shape[1:]}, test images {x_test.shape[1:]}; use one set")
    for images, labels, file in ((x, y, files[1]), (x_test, y_test, files[3])):
        if len(images) != len(labels):
            raise CompressError(f"{file}: {len(labels)} labels for {len(images)} images; use files of one set")
    official = {"train": np.arange(len(x)), "test": np.arange(len(x), len(x) + len(x_test))}
    return assemble_dataset("idx", where, np.concatenate([x, x_test])[:, None], np.concatenate([y, y_test]), official)


def npz(path: str) -> Dataset:
    """The dataset of `npz:PATH`."""
    root, where = existing_path("npz", path), f"npz:{path}"
    if root.is_dir():
        raise CompressError(f"data {where}: is a folder; give one .npz file")

    def make() -> Dataset:
        with read_safely(where), open(root, "rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise CompressError(f"{where}: one array, not an archive of several; write it with np.savez")
            arrays = {key: _plain(archive, key, where) for key in archive}
        return _build(arrays, where)

    return cached_dataset("npz", "", root, [root], make)


def _plain(archive: Mapping[str, np.ndarray], key: str, where: str) -> np.ndarray:
    try:
        return archive[key]
    except ValueError as fault:
        if "Object arrays" not in str(fault):
            raise
        raise CompressError(
            f"{where}: {key} is an array of Python objects, which only a pickle holds; save it as numbers, all rows of "
            f"one shape (labels as integers)"
        ) from None


def _build(arrays: Mapping[str, np.ndarray], where: str) -> Dataset:
    official: dict[str, np.ndarray] = {}
    if "images" in arrays and "labels" in arrays:
        images, labels = arrays["images"], arrays["labels"]
        taken = {"images", "labels", "split", "classes"}
        if "split" in arrays:
            official = _named(arrays["split"], len(images), where)
    else:
        missing = [key for key in ("x_train", "y_train", "x_test", "y_test") if key not in arrays]
        if missing:
            raise CompressError(
                f"{where}: has {', '.join(arrays) or 'nothing'}, no {missing[0]}; write x_train, y_train, x_test, "
                f"y_test, or images and labels"
            )
        parts = [part for part in SPLITS if f"x_{part}" in arrays and f"y_{part}" in arrays]
        taken = {*(f"{letter}_{part}" for letter in "xy" for part in parts), "classes"}
        images = _joined([arrays[f"x_{part}"] for part in parts], "x", where)
        labels = _joined([arrays[f"y_{part}"] for part in parts], "y", where)
        ends = np.cumsum([len(arrays[f"x_{part}"]) for part in parts])
        for part, end in zip(parts, ends, strict=True):
            count, numbers = len(arrays[f"x_{part}"]), len(arrays[f"y_{part}"])
            if numbers != count:
                raise CompressError(f"{where}: y_{part} has {numbers} labels for {count} images; give one an image")
            official[part] = np.arange(end - count, end)
    notes = _left_out(arrays, taken, where)
    levels = as_levels(images, where)
    if levels is not images:
        notes.append(f"{images.dtype} images k/255 are taken as the levels k, 0…255")
    ordered = channels_first(levels, where)
    layout = "(N,H,W), one channel" if images.ndim == 3 else "(N,C,H,W)" if ordered is levels else "(N,H,W,C)"
    notes.append(f"images of shape {images.shape} are read as {layout}")
    classes = _class_names(arrays["classes"], where) if "classes" in arrays else None
    return assemble_dataset("npz", where, np.ascontiguousarray(ordered), labels, official, classes, notes=notes)


def _left_out(arrays: Mapping[str, np.ndarray], taken: "set[str]", where: str) -> "list[str]":
    others = [key for key in arrays if key not in taken]
    if asked := [key for key in others if sounds_like_part(key)]:
        beside = ", ".join(key for key in arrays if key in taken)
        raise CompressError(
            f"{where}: {asked[0]} would be left out beside {beside}; name the parts x_train, y_train, x_val, y_val, "
            f"x_test, y_test, or leave it out"
        )
    return [f"left out: arrays {', '.join(others)}"] if others else []


def _class_names(classes: np.ndarray, where: str) -> "list[str]":
    if classes.dtype.kind != "S":
        return [str(name) for name in classes.ravel()]
    try:
        return [name.decode() for name in classes.ravel().tolist()]
    except UnicodeDecodeError as fault:
        raise CompressError(
            f"{where}: classes holds {fault.object!r}, which is not UTF-8; save the names as text"
        ) from None


def as_levels(images: np.ndarray, where: str) -> np.ndarray:
    """uint8 images; floats only when each is exactly k/255 in its own type, so that nothing is rounded."""
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind != "f":
        raise CompressError(f"{where}: images are {images.dtype}; save them as uint8, 0…255")
    levels = np.empty(images.shape, np.uint8)
    for begin in range(0, len(images), CHUNK):
        part = images[begin : begin + CHUNK]
        near = np.nan_to_num(part.astype(np.float64) * 255).round().clip(0, 255)
        if not np.array_equal((near / 255).astype(images.dtype), part):
            raise CompressError(
                f"{where}: {images.dtype} images that are not all k/255, k = 0…255 (found {part.min():.6g} to "
                f"{part.max():.6g}); save the original uint8 pixels"
            )
        levels[begin : begin + CHUNK] = near
    return levels


def channels_first(images: np.ndarray, where: str) -> np.ndarray:
    """(N,C,H,W) from that, (N,H,W,C) or (N,H,W); a view, nothing is copied.

    C is the end that is 1 or 3; where neither is, the one that is smaller than both sides.
    """
    if images.ndim == 3:
        return images[:, None]
    if images.ndim != 4:
        raise CompressError(
            f"{where}: images of shape {images.shape}: neither (N,H,W,C) nor (N,C,H,W) nor (N,H,W); save them as "
            f"(N,H,W,C)"
        )
    _, one, side, other = images.shape
    last, first = other in CHANNELS, one in CHANNELS
    if not (last or first):
        last, first = other < min(one, side), one < min(side, other)
    if last == first:
        raise CompressError(
            f"{where}: images of shape {images.shape}: {'either' if last else 'neither'} end could be the channels; "
            f"save them as (N,H,W,C), C = 1 or 3 or smaller than both sides"
        )
    return images.transpose(0, 3, 1, 2) if last else images


def _joined(arrays: list[np.ndarray], letter: str, where: str) -> np.ndarray:
    if len({(array.shape[1:], array.dtype) for array in arrays}) > 1:
        shapes = " and ".join(f"{array.dtype} {array.shape}" for array in arrays)
        raise CompressError(f"{where}: {letter}_train and {letter}_test differ: {shapes}; save both alike")
    return np.concatenate(arrays)


def _named(split: np.ndarray, count: int, where: str) -> dict[str, np.ndarray]:
    odd = sorted({str(name) for name in split.ravel()} - set(SPLITS))
    if odd or split.shape != (count,):
        problem = f"holds {odd[0]!r}" if odd else f"has shape {split.shape}"
        raise CompressError(f"{where}: split {problem}; give one of {', '.join(SPLITS)} for each of {count} images")
    return {part: np.flatnonzero(split.astype(str) == part) for part in SPLITS}
