"""The files of a folder, a tar (plain, gz, xz, bz2) or a zip, by name, read where they lie.

Nothing is ever extracted to disk, so a member's name cannot lead anywhere.
"""

import os
import tarfile
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path

from compress.data.faults import reading
from edge.core.errors import CompressError


def names_in(path: Path) -> list[str]:
    """The names of all files in `path`, with `/` between their parts, sorted."""
    return sorted(_folder_names(path) if path.is_dir() else _archive_names(path))


def contents(path: Path, wanted: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of the `wanted` files, in the order in which they are quickest to read.

    A name that a tar holds twice comes twice, what is in force last.
    """
    if path.is_dir():
        for name in sorted(wanted):
            with reading(path / name):
                content = (path / name).read_bytes()
            yield name, content
        return
    with reading(path):
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for name in wanted:
                    yield name, archive.read(name)
            return
        # A stream: a compressed tar has no index, and going back would decompress it from its start.
        with tarfile.open(path, "r|*") as stream:
            for member in stream:
                if member.name in wanted:
                    file = stream.extractfile(member)
                    yield member.name, file.read() if file else b""


def _folder_names(path: Path) -> Iterator[str]:
    for folder, _, files in os.walk(path, followlinks=True):
        inside = folder[len(str(path)) :].lstrip("/")
        for file in files:
            yield f"{inside}/{file}" if inside else file


def _archive_names(path: Path) -> list[str]:
    with reading(path):
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return [member.filename for member in archive.infolist() if not member.is_dir()]
        if not tarfile.is_tarfile(path):
            raise CompressError(f"{path}: neither a folder nor a readable tar or zip; fetch or pack the archive again")
        names = []
        with tarfile.open(path, "r|*") as stream:
            for member in stream:
                if member.issym() or member.islnk():
                    raise CompressError(
                        f"{path}: {member.name} is a link in the archive; pack it anew with tar --dereference "
                        f"--hard-dereference"
                    )
                if member.isreg():
                    names.append(member.name)
        return names
