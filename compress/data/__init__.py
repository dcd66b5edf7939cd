"""Datasets: uint8 images, labels, and a split that is a constant of the dataset, never of a seed."""

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from compress import names

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Dataset:
    """`images` uint8 (N,C,H,W), `labels` int64 (N,), `splits` name → sorted int64 indices."""

    name: str
    images: np.ndarray
    labels: np.ndarray
    splits: dict[str, np.ndarray]
    classes: tuple[str, ...]

    def part(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Images and labels of one split."""
        index = self.splits[split]
        return self.images[index], self.labels[index]

    @functools.cached_property
    def fingerprint(self) -> str:
        """sha256 over shape, images and labels."""
        h = hashlib.sha256(repr((self.images.shape, self.classes)).encode())
        h.update(np.ascontiguousarray(self.images).data)
        h.update(self.labels.astype("<i8").tobytes())
        return h.hexdigest()

    @functools.cached_property
    def split_hash(self) -> str:
        """sha256 over the indices of train, validation and test."""
        h = hashlib.sha256()
        for name in SPLITS:
            h.update(name.encode() + self.splits[name].astype("<i8").tobytes())
        return h.hexdigest()

    def as_plan(self) -> dict[str, str]:
        """What a manifest keeps of the data."""
        return {"name": self.name, "fingerprint": self.fingerprint, "split": self.split_hash}


def first_of_each_class(labels: np.ndarray, count: int) -> np.ndarray:
    """Sorted indices of `count` of `labels` (N,): the first of each class in equal numbers; all where N is less."""
    rank = np.zeros(len(labels), dtype=np.int64)  # how many of its class stand before each
    for label in np.unique(labels):
        members = labels == label
        rank[members] = np.arange(members.sum())
    return np.sort(np.argsort(rank, kind="stable")[:count])


@functools.lru_cache(maxsize=2)
def load_dataset(name: str) -> Dataset:
    """The dataset written `KIND` or `KIND:PATH` (`compress.names.DATASETS`)."""
    kind, path = names.dataset(name)
    return _loaders()[kind](path)


def _loaders() -> "dict[str, Callable[[str | None], Dataset]]":
    from compress.data.cifar import CIFAR10, CIFAR100, cifar
    from compress.data.digits import digits
    from compress.data.idx import idx
    from compress.data.imagefolder import imagefolder
    from compress.data.npz import npz
    from compress.data.parquet import parquet

    return {
        "digits": lambda path: digits(),
        "cifar10": functools.partial(cifar, CIFAR10),
        "cifar100": functools.partial(cifar, CIFAR100),
        "imagefolder": lambda path: imagefolder(str(path)),
        "idx": lambda path: idx(str(path)),
        "npz": lambda path: npz(str(path)),
        "parquet": lambda path: parquet(str(path)),
    }


def stratified_split(images: np.ndarray, labels: np.ndarray, shares: dict[str, float]) -> dict[str, np.ndarray]:
    """Indices by split, each class in the same proportions, ordered by the images' own hashes.

    No random generator is involved, so the split outlives any library's stream. `shares` sum to 1.
    """
    parts: dict[str, list[int]] = {name: [] for name in shares}
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        keys = [hashlib.sha256(images[i].tobytes() + int(i).to_bytes(8, "little")).digest() for i in members]
        ordered = [int(members[k]) for k in sorted(range(len(members)), key=keys.__getitem__)]
        begin, upto = 0, 0.0
        for name, share in shares.items():
            upto += share
            end = round(upto * len(ordered))
            parts[name] += ordered[begin:end]
            begin = end
    return {name: np.array(sorted(index), dtype=np.int64) for name, index in parts.items()}
