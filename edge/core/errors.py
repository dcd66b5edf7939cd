"""The errors a user can meet, by exit code.

    CompressError        2   the user's input: what was wrong, what was found, how to fix it
    ├── MachineFault     2   the machine: no space, no right, no memory; the same command goes on once that is mended
    └── CheckFailed      3   everything ran, but a requirement, parity or validity check failed

Any other exception is our bug (exit 1, with its traceback); an interrupt exits 130.
"""

import errno
import os
import re
from collections.abc import Iterator

from edge.core.foreign_messages import told


class CompressError(Exception):
    """The user's input is at fault. The message is one line: what, got, fix."""

    exit_code = 2


class CheckFailed(CompressError):
    """The work ran to its end and a check on its result failed."""

    exit_code = 3


class MachineFault(CompressError):
    """The machine failed: disk, rights, limits, memory. The message is one line: where, what, fix."""


REPEAT = "and repeat the command"
#: What the system's error numbers mean for whoever typed the command, and what mends it.
SYSTEM = {
    errno.ENOSPC: ("no space left on the disk", f"free some {REPEAT}"),
    errno.EDQUOT: ("the disk quota is used up", f"free some {REPEAT}"),
    errno.EFBIG: ("larger than `ulimit -f` or the file system allows", f"raise the limit {REPEAT}"),
    errno.EROFS: ("the file system is read-only", "choose another place, or mount it for writing"),
    errno.EACCES: ("permission denied", "choose another place, or change its permissions"),
    errno.EPERM: ("operation not permitted", "choose another place, or change its permissions"),
    errno.EMFILE: ("too many open files", f"raise the limit (ulimit -n) {REPEAT}"),
    errno.ENFILE: ("too many open files on this machine", f"close some {REPEAT}"),
    errno.EIO: ("input/output error of the disk", f"look at the disk and its connection (dmesg) {REPEAT}"),
    errno.ESTALE: ("stale handle of a network file system", f"mount it again {REPEAT}"),
    errno.ENOTCONN: ("the mounted file system is gone", f"mount it again {REPEAT}"),
    errno.ENOLCK: ("the file system has no locks", "choose a place on another one"),
    errno.EOPNOTSUPP: ("the file system cannot do that", "choose a place on another one"),
    errno.EEXIST: ("a file, where a folder is needed", "choose another path"),
    errno.ENAMETOOLONG: ("a name that is too long for the file system", "choose a shorter one"),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", "choose another path"),
    errno.EISDIR: ("a folder, where a file is needed", "name a file"),
    errno.ELOOP: ("its links lead in a circle", "choose another path"),
}
#: What allocators, loaders and thread libraries say when memory is at its end; most of them raise no MemoryError.
_MEMORY = re.compile(
    r"(can't|cannot|unable to|failed to) (allocate|map segment)|out of memory|bad.alloc|can't start new thread"
    r"|could not (create|execute) a (primitive|memory)",  # oneDNN
    re.I,
)


#: Those that code around a library's call takes for a fault of what it was called with.
_MISREAD = {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EIO, errno.ESTALE, errno.EROFS}


def machine_fault(fault: BaseException, where: object = None) -> "MachineFault | None":
    """What `fault`, or what it was raised from, says about the machine; None where that is not at fault.

    `where` is named when the system does not name a file: a write into an open one raises without its name.
    """
    for link in _chain(fault):
        at = "" if where is None else f"{where}: "
        if isinstance(link, CompressError):
            continue
        if isinstance(link, MemoryError) or getattr(link, "errno", 0) == errno.ENOMEM or _MEMORY.search(str(link)):
            said = first_line(link).removesuffix(".")
            return MachineFault(f"{at}not enough memory ({said}); ask for less at once (--batch-size) or free some")
        if isinstance(link, RuntimeError) and "determine home directory" in str(link):
            return MachineFault("no home directory is known; set HOME, or ROBUST_COMPRESS_CACHE to a folder of yours")
        if not isinstance(link, OSError):
            continue
        if isinstance(fault, CompressError) and link.errno not in _MISREAD:
            continue
        if link.errno == errno.ENOENT and link.filename and not os.path.isdir(os.path.dirname(link.filename) or "."):
            return MachineFault(f"{link.filename}: there is no folder to put it into; make it first")
        if link.errno in SYSTEM:
            what, fix = SYSTEM[link.errno]
            return MachineFault(f"{link.filename or where or 'a file'}: {what}; {fix}")
    return None


def told_fault(fault: CompressError) -> CompressError:
    """`fault`, or the fault of the machine that it is a wrong reading of."""
    return fault if isinstance(fault, MachineFault | CheckFailed) else machine_fault(fault) or fault


def _chain(fault: "BaseException | None") -> "Iterator[BaseException]":
    """The exception and what it was raised from or in the handling of: closing a file that is full fails again."""
    while fault is not None:
        yield fault
        hidden = fault.__suppress_context__ and not isinstance(fault, CompressError)
        fault = fault.__cause__ or (None if hidden else fault.__context__)


def first_line(fault: "BaseException | str", most: int = 200) -> str:
    """What a foreign exception says, in one line without the C++ around it; its type where it says nothing."""
    return told(str(fault), most) or type(fault).__name__


def nearest_name(name: str, names: "list[str] | tuple[str, ...] | dict[str, str]") -> str:
    """`; did you mean 'x'?` for a name close to a known one, else an empty string."""
    from difflib import get_close_matches

    close = get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def known_name(kind: str, name: str, names: "tuple[str, ...] | dict[str, str]") -> str:
    """`name` itself when it is known; otherwise one line with the nearest name and all of them."""
    if name not in names:
        raise CompressError(f"unknown {kind} {name!r}{nearest_name(name, names)} (known: {', '.join(names)})")
    return name
