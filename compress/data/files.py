"""Files that datasets are read from: damaged ones as one line, those of a folder, tar or zip by name where they lie.

Nothing is ever extracted to disk, so a member's name cannot lead anywhere.
"""

import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from edge.core.errors import CompressError, first_line

#: What the standard library, NumPy and Pillow raise on bytes that are cut short or altered. An encrypted zip is a
#: RuntimeError, a damaged PNG a SyntaxError.
FAULTS = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    SyntaxError,
    MemoryError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
)


class WholeTar(tarfile.TarInfo):
    """Members of a tar that says where it ends: tarfile itself takes one that is cut between two of them for whole."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> "WholeTar":
        """The next member; ReadError where neither one nor the end of the archive is there."""
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as fault:
            raise tarfile.ReadError(f"no end of the archive behind its last readable member: {fault}") from None


@contextmanager
def read_safely(where: "Path | str") -> Iterator[None]:
    """Turns what reading `where` raises into one line that names it."""
    try:
        yield
    except CompressError:
        raise
    except FAULTS as fault:
        raise CompressError(
            f"{where}: cannot be read, damaged or cut short ({first_line(fault, 160)}); fetch or write the file again"
        ) from None


def existing_path(kind: str, path: str) -> Path:
    """The path of `KIND:PATH`, which must be there."""
    place = Path(path).expanduser()
    if not place.exists():
        raise CompressError(f"data {kind}:{path}: no such file or folder; write {kind}:PATH with a path that exists")
    return place


def file_contents(path: Path, wanted: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of the `wanted` files, in the order in which they are quickest to read.

    A name that a tar holds twice comes twice, what is in force last.
    """
    if path.is_dir():
        for name in sorted(wanted):
            with read_safely(path / name):
                content = (path / name).read_bytes()
            yield name, content
        return
    with read_safely(path):
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for name in wanted:
                    yield name, archive.read(name)
            return
        # A stream: a compressed tar has no index, and going back would decompress it from its start.
        with tarfile.open(path, "r|*", tarinfo=WholeTar) as stream:
            for member in stream:
                if member.name in wanted:
                    file = stream.extractfile(member)
                    yield member.name, file.read() if file else b""
