"""Datasets by name, `KIND` or `KIND:PATH`. Standard library only; a kind's file is imported when one is loaded."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from compress.names import resolved, with_installed
from edge.core import errors, plugins, progress
from edge.core.errors import CompressError

if TYPE_CHECKING:
    from compress.data.dataset import Dataset


@dataclass(frozen=True)
class DatasetSource:
    """One kind of dataset. An installed package adds one as an entry point."""

    name: str
    about: str
    #: load(path) → `Dataset`, the path None where none is written; or "module:function"
    load: str | Callable[..., Any]
    path: Literal["none", "optional", "needed"] = "needed"
    #: the radius that the field uses, where one follows from the name
    eps: str | None = None
    #: what augmentation auto stands for: nothing where a mirrored image may be another class
    augment: Literal["none", "crop-flip"] = "none"


SOURCES = (
    DatasetSource(
        "digits",
        "scikit-learn's 1,797 handwritten digits, 8×8, one channel, 10 classes",
        "compress.data.arrays:digits",
        path="none",
        eps="40/255",
    ),
    DatasetSource(
        "cifar10",
        "CIFAR-10, the official python pickles: folder or tar.gz; downloaded when no path is given",
        "compress.data.cifar:cifar10",
        path="optional",
        eps="8/255",
        augment="crop-flip",
    ),
    DatasetSource(
        "cifar100",
        "CIFAR-100, likewise",
        "compress.data.cifar:cifar100",
        path="optional",
        eps="8/255",
        augment="crop-flip",
    ),
    DatasetSource(
        "imagefolder",
        "image files in train/CLASS/ and test/CLASS/ (or only CLASS/): folder, tar or zip",
        "compress.data.imagefolder:imagefolder",
        augment="crop-flip",
    ),
    DatasetSource("idx", "MNIST's IDX files in a folder, plain or .gz", "compress.data.arrays:idx"),
    DatasetSource(
        "npz",
        "a NumPy archive: images and labels, or x_train, y_train, x_test, y_test",
        "compress.data.arrays:npz",
    ),
    DatasetSource(
        "parquet",
        "Hugging Face layout, image bytes and label: a file or a folder of train-*, test-*",
        "compress.data.parquet:parquet",
        augment="crop-flip",
    ),
)


def source_names() -> tuple[str, ...]:
    """The kinds: ours, then those of installed packages."""
    return with_installed("datasets", (source.name for source in SOURCES))


def find_source(kind: str) -> DatasetSource:
    """The source of that kind; CompressError for one that is not known."""
    for source in SOURCES:
        if source.name == kind:
            return source
    return plugins.load("datasets", errors.known_name("data", kind, source_names()), DatasetSource)


def split_name(name: str) -> tuple[str, str | None]:
    """`KIND:PATH` in its two parts, the kind a known one; the path only where that kind can have one."""
    kind, colon, path = name.partition(":")
    source = find_source(kind)
    if not colon and source.path == "needed":
        raise CompressError(f"data {kind!r} needs a path: {kind}:PATH ({source.about})")
    if colon and (source.path == "none" or not path):
        raise CompressError(f"data {name!r}: {kind} takes {'no path' if path else 'a path after the colon'}")
    return kind, path or None


@functools.lru_cache(maxsize=2)
def load_dataset(name: str) -> Dataset:
    """The dataset written `KIND` or `KIND:PATH`; what was taken of it and what was left out is said on stderr."""
    kind, path = split_name(name)
    dataset: Dataset = resolved(find_source(kind).load)(path)
    for note in dataset.notes:
        progress.say(f"data {name}: {note}")
    return dataset


#: The same in a user's own code: `from compress import data; data.load("digits")`.
load = load_dataset
