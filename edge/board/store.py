"""What a board keeps for workstations, below `~/.cache/robust-compress/board`: files by hash, stages by identity, jobs.

Everything is complete or absent: files are written beside their place and renamed.
"""

import contextlib
import fcntl
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edge.core import artifact
from edge.core.errors import CompressError

HEX = re.compile(r"[0-9a-f]{64}")
#: Of a stage's file: one path component that cannot be hidden.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
SPARE = 64 << 20  # bytes that stay free beside a file that is received


def root() -> Path:
    """The folder of it all; $ROBUST_COMPRESS_CACHE and $XDG_CACHE_HOME move it."""
    own = os.environ.get("ROBUST_COMPRESS_CACHE")
    base = Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "robust-compress"
    return base / "board"


def file(sha256: str) -> Path:
    """Where the file of that hash is, or would be."""
    return root() / "files" / _hex(sha256)


def stage(identity: str) -> Path:
    """Where the stage of that identity is, or would be."""
    return root() / "stages" / _hex(identity)


def job(key: str) -> Path:
    return root() / "jobs" / _hex(key)


def _hex(text: str) -> str:
    if not HEX.fullmatch(text):
        raise CompressError(f"{text[:70]!r} is no sha256")
    return text


def find_stage(start: str) -> Path:
    """The one stage whose identity begins with `start`."""
    found = sorted(path for path in (root() / "stages").glob("*") if path.name.startswith(start))
    if len(found) != 1:
        what = f"{len(found)} stages begin with it" if found else "no stage of that identity is there"
        raise CompressError(f"{start}: {what}; `compress verify --host` and `compress attack --host` send stages there")
    return found[0]


def room(size: int) -> None:
    """CompressError where `size` bytes more would fill the disk."""
    root().mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(root()).free
    if size + SPARE > free:
        raise CompressError(
            f"{root()}: {size:,} bytes are to be stored, {free:,} are free; delete what is not needed there, or set "
            f"ROBUST_COMPRESS_CACHE to a folder on another disk"
        )


@contextlib.contextmanager
def receiving(sha256: str, size: int) -> "Iterator[Any]":
    """An open file to be filled with the bytes of that hash; in its place afterwards, or gone."""
    room(size)
    place = file(sha256)
    place.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix="incoming-", dir=place.parent)
    try:
        with open(handle, "wb") as open_:
            yield open_
            open_.flush()
            os.fsync(open_.fileno())
        got = artifact.file_sha256(Path(name))
        if got != sha256:
            raise CompressError(f"received bytes of sha256 {got:.12}, announced were {sha256:.12}; send them again")
        os.replace(name, place)
    except OSError as fault:
        raise CompressError(f"{place.parent}: cannot be written ({fault.strerror}); free some space there") from None
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def assemble(identity: str, files: Mapping[str, str]) -> Path:
    """The stage folder of that identity from stored files, {name: sha256}, read and so checked as a whole."""
    place = stage(identity)
    _names(files)
    place.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix="incoming-", dir=place.parent))
    try:
        for name, sha256 in files.items():
            _link(file(sha256), beside / name)
        assembled = artifact.read(beside)
        if assembled.identity != identity:
            raise CompressError(f"a stage of identity {assembled.identity:.12} came as {identity:.12}; send it again")
        if not _complete(place, identity):
            shutil.rmtree(place, ignore_errors=True)
            try:
                os.replace(beside, place)
            except OSError:
                if not _complete(place, identity):  # nobody else was quicker
                    raise
    except OSError as fault:
        raise CompressError(f"{place}: cannot be written ({fault.strerror}); free some space there") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return place


def gather(files: Mapping[str, str], folder: Path) -> None:
    """Stored files, {name: sha256}, side by side in a new folder."""
    _names(files)
    folder.mkdir()
    for name, sha256 in files.items():
        if not file(sha256).is_file():
            raise CompressError(f"{name} is not there; run the command again, it is sent anew")
        _link(file(sha256), folder / name)


def _names(files: Mapping[str, str]) -> None:
    for name in files:
        if not NAME.fullmatch(name):
            raise CompressError(f"{name[:110]!r} is no name of a file that is kept here")


def _complete(place: Path, identity: str) -> bool:
    """Whether the stage is there already; a job may be reading it, so it stays."""
    try:
        return artifact.read(place).identity == identity
    except CompressError:
        return False


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)


# ------------------------------------------------------------------------------------------- who is at work


class Busy:
    """The board, taken by this process: alone to measure, or together with others to serve.

    `with` lets go of it. `handle` is the lock itself: a process that inherits it holds the board as long as it lives.
    """

    def __init__(self, what: str, *, alone: bool) -> None:
        root().mkdir(parents=True, exist_ok=True)
        self._path = root() / "busy"
        self.handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self.handle, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except OSError:
            os.close(self.handle)
            raise CompressError(
                f"{owner(self._path)} is at work on this board, two would disturb each other's measurements; wait for "
                f"it, or end it there"
            ) from None
        self.tell(os.getpid(), what)

    def tell(self, pid: int, what: str) -> None:
        """Write down who has the board, for whoever asks next."""
        os.ftruncate(self.handle, 0)
        os.pwrite(self.handle, json.dumps({"pid": pid, "what": what}).encode(), 0)

    def __enter__(self) -> "Busy":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.handle)


def owner(path: Path) -> str:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return f"process {int(record['pid'])} ({record['what']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
