"""A dataset in memory: uint8 images, labels, and a split that is a constant of the dataset, never of a seed."""

import functools
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from compress.data.content import content_notes
from edge.core.errors import CompressError

SPLITS = ("train", "val", "test")
#: Of a source that has no parts of its own.
SHARES = {"train": 0.64, "val": 0.16, "test": 0.20}
#: Of an official train split, the validation part is a tenth, and no more than this many images.
VALIDATION = 5000


@dataclass(frozen=True)
class Dataset:
    """`images` uint8 (N,C,H,W), `labels` int64 (N,), `splits` name → sorted int64 indices.

    `notes` say, a line each, what was taken, what was left out and why, and what is odd; they decide nothing.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray
    splits: dict[str, np.ndarray]
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()

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

    def with_notes(self, notes: Sequence[str]) -> "Dataset":
        """The same dataset with more to say about it; what was hashed stays so."""
        noted = replace(self, notes=(*self.notes, *notes))
        vars(noted).update({name: vars(self)[name] for name in ("fingerprint", "split_hash") if name in vars(self)})
        return noted

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


def assemble_dataset(
    kind: str,
    where: str,
    images: np.ndarray,
    labels: np.ndarray,
    official: Mapping[str, np.ndarray],
    classes: "Sequence[str] | None" = None,
    *,
    notes: Sequence[str] = (),
    files: "Sequence[str] | None" = None,
) -> Dataset:
    """The dataset of `images` uint8 (N,C,H,W) and integer `labels` (N,) or (N,1).

    `official` holds the indices of the source's own parts: train and test, with or without val; or train alone, or
    nothing: then everything is split 64/16/20. Without `classes` the labels are their own names. `notes` say what
    reading them left out; `files` are the images' names, for what is said of single ones.
    """
    labels = integers(where, labels, len(images))
    if len(labels) == 0:
        raise CompressError(f"{where}: holds no image; give it at least two classes of images")
    names = tuple(classes) if classes is not None else tuple(str(k) for k in range(labels.max() + 1))
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise CompressError(f"{where}: two classes are called {twice[0]!r}; give each class a name of its own")
    outside = (labels < 0) | (labels >= len(names))
    if outside.any():
        at = int(np.flatnonzero(outside)[0])
        bounds = f"outside 0…{len(names) - 1}" if names else "below 0"  # none but −1: no labels
        raise CompressError(f"{where}: image {at} has label {labels[at]}, {bounds}; number the classes from 0")
    if len(np.unique(labels)) < 2:
        raise CompressError(
            f"{where}: all images have one class ({names[labels[0]]!r}); a classifier needs at least two"
        )
    splits = _splits(where, images, labels, official)
    for name in SPLITS:
        if len(splits[name]) == 0:
            raise CompressError(
                f"{where}: {len(labels)} images in {len(names)} classes leave none for {name}; give at least "
                f"5 of each class"
            )
    absent = set(range(len(names))) - set(labels[splits["train"]].tolist())
    if absent:
        raise CompressError(
            f"{where}: class {names[min(absent)]!r} has no training image; add some, or leave the class out and "
            f"number the others from 0"
        )
    told = (_taken(images, splits, names, official), *notes, *content_notes(images, labels, splits, names, files))
    return Dataset(kind, images, labels, splits, names, told)


def _taken(
    images: np.ndarray, splits: Mapping[str, np.ndarray], classes: Sequence[str], official: Mapping[str, np.ndarray]
) -> str:
    """`1,797 images 1×8×8 in 10 classes (0, 1, 2, …): train 1,149, val 289, test 359 (split 64/16/20, …)`."""
    own = {name for name, index in official.items() if len(index)}
    how = "the source's own parts" if "val" in own else "val is a tenth of the source's train part, at most 5,000"
    if own <= {"train"}:
        how = "split 64/16/20, as the source has no test part"
    counts = ", ".join(f"{name} {len(splits[name]):,}" for name in SPLITS)
    named = ", ".join(classes[:3]) + (", …" if len(classes) > 3 else "")
    shape = "×".join(str(side) for side in images.shape[1:])
    return f"{len(images):,} images {shape} in {len(classes)} classes ({named}): {counts} ({how})"


def integers(where: str, labels: np.ndarray, count: int) -> np.ndarray:
    """Labels (N,) or (N,1) of any integer type as int64 (N,), one for each of `count` images."""
    if labels.ndim == 2 and labels.shape[1] == 1:  # as Keras keeps CIFAR's
        labels = labels[:, 0]
    if labels.dtype.kind not in "iu" or labels.shape != (count,):
        rows = labels.ndim == 2 and len(labels) == count
        fix = "where a row is one-hot, save labels.argmax(1)" if rows else "give one integer an image"
        raise CompressError(f"{where}: labels are {labels.dtype} of shape {labels.shape} for {count} images; {fix}")
    return labels.astype(np.int64)


def _splits(
    where: str, images: np.ndarray, labels: np.ndarray, official: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    parts = {name: index for name, index in official.items() if len(index)}
    if set(parts) <= {"train"}:
        return stratified_split(images, labels, SHARES)
    for name in ("train", "test"):
        if name not in parts:
            raise CompressError(
                f"{where}: has {' and '.join(sorted(parts))} but no {name} part; add {name}, or name no parts at all "
                f"and it is split 64/16/20"
            )
    if "val" in parts:
        return {name: np.sort(parts[name]).astype(np.int64) for name in SPLITS}
    train = np.sort(parts["train"]).astype(np.int64)
    share = min(VALIDATION, 0.1 * len(train)) / len(train)
    inner = stratified_split(images[train], labels[train], {"train": 1 - share, "val": share})
    return {"train": train[inner["train"]], "val": train[inner["val"]], "test": np.sort(parts["test"]).astype(np.int64)}
