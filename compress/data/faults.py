"""Damaged files, whatever library finds them, as one line."""

import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge.core.errors import CompressError

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


def reason(fault: BaseException) -> str:
    """What a library said, on one line and not too long."""
    return " ".join(str(fault).split())[:160] or type(fault).__name__


@contextmanager
def reading(where: "Path | str") -> Iterator[None]:
    """Turns what reading `where` raises into one line that names it."""
    try:
        yield
    except CompressError:
        raise
    except FAULTS as fault:
        raise CompressError(
            f"{where}: cannot be read, damaged or cut short ({reason(fault)}); fetch or write the file again"
        ) from None


def existing(kind: str, path: str) -> Path:
    """The path of `KIND:PATH`, which must be there."""
    found = Path(path).expanduser()
    if not found.exists():
        raise CompressError(f"data {kind}:{path}: no such file or folder; write {kind}:PATH with a path that exists")
    return found
