"""Image files by class: train/CLASS/ and test/CLASS/, or only CLASS/, in a folder, a tar or a zip.

`val/` (or `valid/`, `validation/`) is the validation split where there is one. All of it may lie one folder deeper.
The images are ordered by part, class and name, so that the same files give the same dataset from any container.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from compress.data.cache import cached_dataset
from compress.data.dataset import SPLITS, Dataset, assemble_dataset
from compress.data.decode import decode_images, split_option
from compress.data.files import existing_path, file_contents, file_names
from edge.core.errors import CompressError

KIND = "imagefolder"
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".pnm")
PARTS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


class Member(NamedTuple):
    """One image file: its part of the split (empty when the source has none), class, and name in the source."""

    part: str
    label: str
    name: str


def imagefolder(path: str) -> Dataset:
    """The dataset of `imagefolder:PATH` or `imagefolder:PATH?size=N`."""
    path, size = split_option(KIND, path)
    root, where = existing_path(KIND, path), f"{KIND}:{path}"
    if root.is_dir():
        names = _images(file_names(root))
        return cached_dataset(
            KIND, f"{size}", root, [f"{root}/{name}" for name in names], lambda: _read(root, where, names, size)
        )
    return cached_dataset(KIND, f"{size}", root, [root], lambda: _read(root, where, _images(file_names(root)), size))


def arrange(names: list[str], where: str) -> list[Member]:
    """Part and class of every image file by its place, in the order of the dataset."""
    places = {name: tuple(part for part in name.split("/") if part not in ("", ".")) for name in names}
    if not places:
        raise CompressError(
            f"{where}: no image in it ({', '.join(SUFFIXES)}); put images into train/CLASS/ and test/CLASS/"
        )
    if len({place[0] for place in places.values()}) == 1 and all(len(place) > 2 for place in places.values()):
        only = next(iter(places.values()))[0]
        if only.lower() not in PARTS:
            places = {name: place[1:] for name, place in places.items()}
    official = any(place[0].lower() in PARTS for place in places.values())
    members = []
    for name, place in places.items():
        part = PARTS.get(place[0].lower(), "") if official else ""
        if official and not part:
            continue  # a folder beside train/ and test/
        if len(place) < (3 if official else 2):
            raise CompressError(f"{where}: {name} lies in no class folder; put it into {'train/' * official}CLASS/")
        members.append(Member(part, place[1 if official else 0], name))
    order = ("", *SPLITS)
    return sorted(members, key=lambda member: (order.index(member.part), member.label, places[member.name]))


def _read(root: Path, where: str, names: list[str], size: "int | None") -> Dataset:
    members = arrange(names, where)
    classes = _classes(members, where)
    place = {member.name: k for k, member in enumerate(members)}

    def entries() -> Iterator[tuple[int, str, bytes]]:
        for name, encoded in file_contents(root, place.keys()):
            yield place[name], f"{where}: {name}", encoded

    images = decode_images(entries(), len(members), size, where)
    labels = np.array([classes.index(member.label) for member in members])
    parts = np.array([member.part for member in members])
    official = {part: np.flatnonzero(parts == part) for part in SPLITS}
    return assemble_dataset(KIND, where, images, labels, official, classes)


def _classes(members: list[Member], where: str) -> list[str]:
    by_part: dict[str, set[str]] = {}
    for member in members:
        by_part.setdefault(member.part, set()).add(member.label)
    base = "train" if "train" in by_part else members[0].part
    for part, labels in by_part.items():
        odd = sorted(labels ^ by_part[base])
        if odd:
            there, missing = (part, base) if odd[0] in labels else (base, part)
            raise CompressError(
                f"{where}: class {odd[0]!r} has images in {there}/ and none in {missing}/; give both the same classes"
            )
    return sorted(by_part[base])


def _images(names: list[str]) -> list[str]:
    """The image files; hidden ones and those that macOS adds to an archive are none."""
    return [
        name
        for name in names
        if name.lower().endswith(SUFFIXES) and not name.rpartition("/")[2].startswith(".") and "__MACOSX/" not in name
    ]
