"""Image files by class: train/CLASS/ and test/CLASS/, or only CLASS/, in a folder, a tar or a zip.

`val/` (or `valid/`, `validation/`) is the validation split where there is one. All of it may lie one folder deeper.
The images are ordered by part, class and name, so that the same files give the same dataset from any container.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from compress.data.cache import cached_dataset
from compress.data.dataset import SPLITS, Dataset, assemble_dataset
from compress.data.decode import decode_images, size_option, split_option
from compress.data.files import existing_path, file_contents
from compress.data.layout import MERGE, Arrangement, arrange
from compress.data.listing import as_text, list_files

KIND = "imagefolder"


def imagefolder(path: str) -> Dataset:
    """The dataset of `imagefolder:PATH`, `imagefolder:PATH?size=N` or `imagefolder:PATH?nested=merge`."""
    path, options = split_option(KIND, path, MERGE)
    size, merge = size_option(options), "nested" in options
    root, where = existing_path(KIND, path), f"{KIND}:{path}"
    option = f"{size}{MERGE if merge else ''}"
    if not root.is_dir():
        return cached_dataset(
            KIND, option, root, [root], lambda: _read(root, where, arrange(list_files(root), where, merge), size)
        )
    layout = arrange(list_files(root), where, merge)
    # What the listing has to say is said anew each time: it depends on files that are no images of the entry
    files = [f"{root}/{name}" for name in sorted(member.name for member in layout.members)]
    return cached_dataset(
        KIND, option, root, files, lambda: _read(root, where, layout._replace(notes=[]), size)
    ).with_notes(layout.notes)


def _read(root: Path, where: str, layout: Arrangement, size: "int | None") -> Dataset:
    place = {member.name: k for k, member in enumerate(layout.members)}

    def entries() -> Iterator[tuple[int, str, bytes]]:
        for name, encoded in file_contents(root, place.keys()):
            yield place[name], as_text(name), encoded

    images, notes = decode_images(entries(), len(place), size, where)
    number = {name: label for label, name in enumerate(layout.classes)}
    labels = np.array([number[member.label] for member in layout.members])
    parts = np.array([member.part for member in layout.members])
    official = {part: np.flatnonzero(parts == part) for part in SPLITS}
    return assemble_dataset(
        KIND,
        where,
        images,
        labels,
        official,
        layout.classes,
        notes=[*layout.notes, *notes],
        files=[as_text(name) for name in place],
    )
