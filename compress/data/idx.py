"""MNIST's IDX files (LeCun et al. 1998): two files of images and two of labels, plain or gzip.

Two zero bytes, a type code (8: unsigned byte), the number of dimensions, each dimension as a big-endian uint32, and
then the values. Test images are those named t10k.
"""

import gzip
import struct
from pathlib import Path

import numpy as np

from compress.data.cache import cached_dataset
from compress.data.dataset import Dataset, assemble_dataset
from compress.data.files import existing_path, read_safely
from edge.core.errors import CompressError

KIND = "idx"
FILES = {  # number of dimensions by stem
    "train-images": 3,
    "train-labels": 1,
    "t10k-images": 3,
    "t10k-labels": 1,
}
BYTE = 8


def idx(path: str) -> Dataset:
    """The dataset of `idx:PATH`, a folder."""
    root, where = existing_path(KIND, path), f"{KIND}:{path}"
    files = [_file(root, stem, ndim, where) for stem, ndim in FILES.items()]
    return cached_dataset(KIND, "", root, files, lambda: _read(files, where))


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
    return assemble_dataset(KIND, where, np.concatenate([x, x_test])[:, None], np.concatenate([y, y_test]), official)
