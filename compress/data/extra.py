"""Extra training images: real or generated ones that are mixed into every batch.

`npz:FILE` with `image` and `label` (as generated CIFAR images are published), `images` and `labels`, or `x_train` and
`y_train`; without labels too. Any other KIND:PATH is a dataset, all of whose images are taken. uint8 throughout; an
array that its npz stores uncompressed is mapped, not read.
"""

import functools
import hashlib
import struct
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from compress import data
from compress.data import split_name
from compress.data.arrays import as_levels, channels_first
from compress.data.cache import remembered_fingerprint
from compress.data.content import all_checksums, chunks
from compress.data.dataset import SPLITS, Dataset, integers
from compress.data.files import existing_path, read_safely
from edge.core.errors import CompressError
from edge.core.progress import say

#: The arrays of an npz: images, labels.
KEYS = (("image", "label"), ("images", "labels"), ("x_train", "y_train"))


@dataclass(frozen=True)
class ExtraImages:
    """`images` uint8 (N,C,H,W), perhaps a view of a mapped file; `labels` int64 (N,) or None; sha256 over both."""

    name: str
    images: np.ndarray
    labels: "np.ndarray | None"
    fingerprint: str
    classes: "tuple[str, ...] | None" = None
    #: share of every batch
    fraction: float = 0.0
    #: what was taken of it and what was left out
    notes: tuple[str, ...] = ()


@functools.lru_cache(maxsize=2)
def load_extra(name: str) -> ExtraImages:
    """The images written `KIND:PATH`; what was taken and what was left out is said on stderr."""
    kind, path = split_name(name)
    if kind == "npz":
        extra = _npz(name, str(path))
        for note in extra.notes:
            say(f"extra {name}: {note}")
        return extra
    whole = data.load_dataset(name)
    say(f"extra {name}: all {len(whole.images):,} images are taken, those of its val and test parts too")
    return ExtraImages(name, whole.images, whole.labels, whole.fingerprint, whole.classes)


def checked_extra(extra: ExtraImages, dataset: Dataset, fraction: float, batch_size: int) -> ExtraImages:
    """`extra` as that share of batches of training on `dataset`; one line that says why where it cannot be."""
    shape, classes = dataset.images.shape[1:], len(dataset.classes)
    if extra.images.shape[1:] != shape:
        raise CompressError(
            f"extra {extra.name}: images (C,H,W) = {extra.images.shape[1:]}, {dataset.name} has {shape}; give images "
            f"of that shape"
        )
    if extra.classes is not None and len(extra.classes) != classes:
        raise CompressError(
            f"extra {extra.name}: {len(extra.classes)} classes, {dataset.name} has {classes}; give images of the same"
        )
    _refuse_moved_classes(extra, dataset)
    if extra.labels is not None and (outside := (extra.labels < 0) | (extra.labels >= classes)).any():
        at = int(np.flatnonzero(outside)[0])
        raise CompressError(
            f"extra {extra.name}: image {at} has label {extra.labels[at]}, {dataset.name} has classes 0…{classes - 1}; "
            f"give images of these classes, or no labels"
        )
    count = round(fraction * batch_size)
    if not 0 < count < batch_size:
        raise CompressError(
            f"extra.fraction {fraction}: of batches of {batch_size} that is {count} images, where each needs extra and "
            f"training images; give between {1 / batch_size:.3g} and {1 - 1 / batch_size:.3g}"
        )
    if again := _refuse_held_out(extra, dataset):
        say(f"extra {extra.name}: {again:,} of its {len(extra.images):,} images are training images of {dataset.name}")
    return replace(extra, fraction=fraction)


def _refuse_moved_classes(extra: ExtraImages, dataset: Dataset) -> None:
    """Labels are numbers: a class of the same name must have the same one, and what is called otherwise is said."""
    if extra.classes is None:
        return
    names = extra.classes
    for number, name in enumerate(names):
        if name in dataset.classes and dataset.classes[number] != name:
            there = dataset.classes.index(name)
            raise CompressError(
                f"extra {extra.name}: its classes stand in another order than those of {dataset.name} ({name!r} is "
                f"number {number}, there {there}); bring them into that order"
            )
    if differing := [(a, b) for a, b in zip(names, dataset.classes, strict=True) if a != b]:
        here, other = differing[0]
        say(
            f"extra {extra.name}: {len(differing)} of {len(names)} classes are called otherwise in {dataset.name} "
            f"({here!r} there {other!r}): taken by their numbers"
        )


def _npz(name: str, path: str) -> ExtraImages:
    file, where = existing_path("npz", path), f"extra {name}"
    with read_safely(where):
        if not zipfile.is_zipfile(file):
            raise CompressError(f"{where}: no archive of arrays; write it with np.savez")
        with zipfile.ZipFile(file) as archive:
            held = [member.removesuffix(".npy") for member in archive.namelist()]
        keys = next((pair for pair in KEYS if pair[0] in held), None)
        if keys is None:
            raise CompressError(
                f"{where}: has {', '.join(held) or 'nothing'}; name the images image, images or x_train, their labels "
                f"label, labels or y_train"
            )
        foreign = [label for _, label in KEYS if label in held and label != keys[1]]
        if keys[1] not in held and foreign:
            raise CompressError(f"{where}: the labels of {keys[0]} are called {keys[1]}, not {foreign[0]}; rename them")
        images = channels_first(as_levels(_array(file, keys[0]), where), where)
        labels = integers(where, _array(file, keys[1]), len(images)) if keys[1] in held else None
    if len(images) == 0:
        raise CompressError(f"{where}: holds no image; leave extra out")
    notes = [
        f"{len(images):,} images from {keys[0]}, " + (f"labels from {keys[1]}" if labels is not None else "no labels")
    ]
    if others := [key for key in held if key not in keys]:
        notes.append(f"left out: arrays {', '.join(others)}")
    fingerprint = remembered_fingerprint("extra", file, lambda: _fingerprint(images, labels))
    return ExtraImages(name, images, labels, fingerprint, notes=tuple(notes))


def _array(file: Path, name: str) -> np.ndarray:
    """One array of an npz, mapped where it is stored as it is, otherwise read."""
    mapped = _mapped(file, f"{name}.npy")
    if mapped is not None:
        return mapped
    with np.load(file, allow_pickle=False) as archive:
        return np.asarray(archive[name])


def _mapped(file: Path, member: str) -> "np.ndarray | None":
    with zipfile.ZipFile(file) as archive:
        info = archive.getinfo(member)
    if info.compress_type != zipfile.ZIP_STORED:
        return None
    with open(file, "rb") as handle:
        # the local header: 30 bytes, then the name and what may follow it, of the lengths at 26
        handle.seek(info.header_offset + 26)
        handle.seek(sum(struct.unpack("<HH", handle.read(4))), 1)
        version = np.lib.format.read_magic(handle)
        if version > (2, 0):
            return None
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = header(handle)
        if fortran or dtype.hasobject or 0 in shape:
            return None
        # copy-on-write: torch takes the array without a warning, and the file stays as it is
        return np.memmap(file, dtype, mode="c", offset=handle.tell(), shape=shape).view(np.ndarray)


def _fingerprint(images: np.ndarray, labels: "np.ndarray | None") -> str:
    h = hashlib.sha256(repr((images.shape, labels is not None)).encode())
    for chunk in chunks(images):
        h.update(chunk.data)
    if labels is not None:
        h.update(labels.astype("<i8").tobytes())
    return h.hexdigest()


def _refuse_held_out(extra: ExtraImages, dataset: Dataset) -> int:
    """Images of the validation or the test split, byte for byte, have no place in training.

    How many are training images already.
    """
    of_all, numbers = all_checksums(dataset.images), all_checksums(extra.images)
    sums = {split: of_all[dataset.splits[split]] for split in SPLITS}
    known = {split: {_digest(dataset.images[at]) for at in dataset.splits[split]} for split in ("val", "test")}
    counts, first = dict.fromkeys(known, 0), -1
    suspects = np.isin(numbers, np.concatenate([sums["val"], sums["test"]]))  # few: the digest decides
    for at in map(int, np.flatnonzero(suspects)):
        held_in = [split for split, digests in known.items() if _digest(extra.images[at]) in digests]
        for split in held_in:
            counts[split] += 1
        first = at if held_in and first < 0 else first
    if first >= 0:
        raise CompressError(
            f"extra {extra.name}: {counts['test']} of its {len(extra.images)} images are test images of "
            f"{dataset.name}, {counts['val']} validation images (the first is image {first}); leave them out"
        )
    return int(np.isin(numbers, sums["train"]).sum())


def _digest(image: np.ndarray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(image).data).digest()
