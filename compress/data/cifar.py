"""CIFAR-10 and CIFAR-100 from their official python pickles (Krizhevsky 2009): 32×32, RGB, 50,000 + 10,000 images.

https://www.cs.toronto.edu/~kriz/cifar.html. Pickles are read without letting them call anything but what rebuilds an
array.
"""

import io
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from compress.data.cache import cached_dataset, fetch_archive
from compress.data.dataset import Dataset, assemble_dataset
from compress.data.files import existing_path, file_contents
from compress.data.listing import as_text, left_out, list_files
from edge.core.errors import CompressError, first_line

SHAPE = (3, 32, 32)
#: Beside the data in the archives as published.
PUBLISHED = ("readme.html", "file.txt~")


@dataclass(frozen=True)
class Release:
    """One of the two datasets as published: its files, the keys inside them, its address and checksum."""

    kind: str
    folder: str
    train: tuple[str, ...]
    test: str
    meta: str
    label_key: bytes
    names_key: bytes
    url: str
    sha256: str

    @property
    def files(self) -> tuple[str, ...]:
        return (*self.train, self.test, self.meta)


CIFAR10 = Release(
    kind="cifar10",
    folder="cifar-10-batches-py",
    train=tuple(f"data_batch_{k}" for k in range(1, 6)),
    test="test_batch",
    meta="batches.meta",
    label_key=b"labels",
    names_key=b"label_names",
    url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
)
CIFAR100 = Release(
    kind="cifar100",
    folder="cifar-100-python",
    train=("train",),
    test="test",
    meta="meta",
    label_key=b"fine_labels",
    names_key=b"fine_label_names",
    url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
    sha256="85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
)


def cifar(release: Release, path: "str | None") -> Dataset:
    """The dataset in that folder or archive, or in the official one, downloaded into the cache."""
    root = existing_path(release.kind, path) if path else fetch_archive(release.kind, release.url, release.sha256)
    where = f"{release.kind}:{root}"
    if not root.is_dir():
        return cached_dataset(release.kind, "", root, [root], lambda: _read(release, root, where))
    inner = root / release.folder
    folder = inner if inner.is_dir() else root
    files = [folder / name for name in release.files]
    _all_there(release, [file.name for file in files if file.exists()], where)
    listing = list_files(folder, deep=False)
    notes = left_out("not of the release", sorted({*listing.files} - {*release.files, *PUBLISHED}))
    notes += left_out("not looked into", listing.folders, "folder")
    return cached_dataset(release.kind, "", folder, files, lambda: _read(release, folder, where)).with_notes(
        [*listing.notes, *notes]
    )


def cifar10(path: "str | None") -> Dataset:
    """CIFAR-10 at a path, or the official archive."""
    return cifar(CIFAR10, path)


def cifar100(path: "str | None") -> Dataset:
    """CIFAR-100, likewise."""
    return cifar(CIFAR100, path)


def _read(release: Release, root: Path, where: str) -> Dataset:
    members: dict[str, str] = {}
    for name in list_files(root, deep=False).files:
        folder, _, last = name.rpartition("/")
        if last not in release.files or (folder if root.is_dir() else Path(folder).name != release.folder):
            continue
        if last in members:
            raise CompressError(
                f"{where}: {as_text(members[last])} and {as_text(name)} are both there; keep one of them"
            )
        members[last] = name
    _all_there(release, list(members), where)
    objects = {
        Path(name).name: loads_data_only(content, f"{where}: {Path(name).name}")
        for name, content in file_contents(root, set(members.values()))
    }
    batches = [_batch(objects[name], release, f"{where}: {name}") for name in (*release.train, release.test)]
    images = np.concatenate([pixels for pixels, _ in batches]).reshape(-1, *SHAPE)
    labels = np.concatenate([labels for _, labels in batches])
    cut = len(labels) - len(batches[-1][1])
    official = {"train": np.arange(cut), "test": np.arange(cut, len(labels))}
    meta = objects[release.meta]
    names = meta.get(release.names_key) if isinstance(meta, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, bytes) for name in names):
        raise CompressError(f"{where}: {release.meta} has no {release.names_key.decode()}; use the official file")
    classes = [name.decode("ascii", "replace") for name in names]
    return assemble_dataset(release.kind, where, images, labels, official, classes)


def _all_there(release: Release, present: "list[str]", where: str) -> None:
    missing = [name for name in release.files if name not in present]
    if missing:
        raise CompressError(
            f"{where}: {missing[0]} is missing; give the folder {release.folder} or {release.url.rpartition('/')[2]}"
        )


def _batch(batch: Any, release: Release, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 (n, 3072), the red plane first, and labels (n,)."""
    pixels, labels = (batch.get(key) if isinstance(batch, dict) else None for key in (b"data", release.label_key))
    width = int(np.prod(SHAPE))
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[1:] != (width,):
        described = f"{pixels.dtype} {pixels.shape}" if isinstance(pixels, np.ndarray) else type(pixels).__name__
        raise CompressError(f"{where}: data is {described}, not uint8 (n, {width}); use the official file")
    if not isinstance(labels, list) or not all(type(label) is int for label in labels) or len(labels) != len(pixels):
        described = f"{len(labels)} entries" if isinstance(labels, list) else type(labels).__name__
        raise CompressError(
            f"{where}: {release.label_key.decode()} is {described}, not one integer for each of {len(pixels)} images; "
            f"use the official file"
        )
    return pixels, np.array(labels, dtype=np.int64)


def loads_data_only(content: bytes, where: str) -> Any:
    """The object in a pickle, as Python 2 or 3 wrote it; its strings come back as bytes where Python 2 wrote them."""
    try:
        return _DataOnly(io.BytesIO(content), where).load()
    except CompressError:
        raise
    except Exception as fault:  # a damaged pickle makes any opcode fail, with any exception
        raise CompressError(
            f"{where}: not a readable pickle ({first_line(fault, 160)}); fetch the file again"
        ) from None


def _latin1(text: str, encoding: str) -> bytes:
    """`_codecs.encode` as far as Python 3 needs it to write bytes in the old protocols."""
    if encoding != "latin1":
        raise ValueError(f"encoding {encoding}")
    return text.encode("latin1")


class _DataOnly(pickle.Unpickler):
    """Finds only what rebuilds an array."""

    allowed: ClassVar[dict[tuple[str, str], Any]] = {
        # taken from NumPy itself: its module has moved between versions, and so it does in pickles
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): _latin1,
    }

    def __init__(self, file: io.BytesIO, where: str) -> None:
        super().__init__(file, encoding="bytes")
        self.where = where

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.allowed:
            raise CompressError(
                f"{self.where}: the pickle asks for {module}.{name}, which is code, not data; it was not "
                f"run: use the official file"
            )
        return self.allowed[module, name]
