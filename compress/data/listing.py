"""What a folder, tar or zip holds: its files by name, and what is left out of them, counted.

Hidden files and folders and those that tools leave behind (notebooks, network drives, macOS, Windows) are no data, at
whatever depth, alone or in an archive. A link that leads back to a folder above it is left out; one that leads nowhere
is a fault of whoever reads it.
"""

import functools
import itertools
import os
import stat
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.data.files import WholeTar, read_safely
from edge.core.errors import CompressError

#: Names in lower case; what begins with a dot needs no entry.
TOOL_NAMES = frozenset(
    {
        *("__macosx", "__pycache__", "icon\r"),
        *("@eadir", "@tmp", "@recycle", "#recycle", "#snapshot", "@__thumb"),  # Synology, QNAP
        *("network trash folder", "temporary items"),
        *("thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information"),
        *("recycler", "lost+found", "lost.dir"),
    }
)
ZIP_UTF8 = 0x800  # the flag of a member whose name is UTF-8
CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}
COUNTED = 10_000  # files of one hidden folder: a snapshot may hold a whole disk
SHOWN = 4  # names or suffixes in one line


@dataclass(frozen=True)
class Listing:
    """Names of files and of folders, `/` between their parts, sorted; `notes` say what was left out."""

    files: tuple[str, ...]
    folders: tuple[str, ...]
    notes: tuple[str, ...]


def list_files(path: Path, *, deep: bool = True) -> Listing:
    """All files and folders in `path`, a folder or an archive, but for those that are hidden or of a tool.

    Without `deep` the folders in a folder are named and not entered.
    """
    names, folders, notes, aside = _walk(path, deep) if path.is_dir() else _members(path)
    least = "at least " * any(count >= COUNTED for count in aside.values())
    why = [_set_aside(name) for name in names]
    files = [name for name, reason in zip(names, why, strict=True) if reason is None]
    aside.update(reason for reason in why if reason is not None)
    if aside:
        notes.insert(0, f"left out, hidden or of a tool: {least}{counted(aside.total(), 'file')} ({most(aside)})")
    for folder in {name.rpartition("/")[0] for name in files}:
        while folder and folder not in folders:
            folders.add(folder)
            folder = folder.rpartition("/")[0]
    return Listing(tuple(sorted(files)), tuple(sorted(f for f in folders if _set_aside(f) is None)), tuple(notes))


def as_text(name: str) -> str:
    """A name from the file system as text: what is not UTF-8 in it is escaped, `caf\\xe9`, and so are controls."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace").translate(CONTROLS)


def most(counts: "Counter[str]") -> str:
    """`.txt 12, .gif 3`, the most frequent first."""
    ordered = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    more = f", {len(ordered) - SHOWN} more" if len(ordered) > SHOWN else ""
    return ", ".join(f"{as_text(name)} {count:,}" for name, count in ordered[:SHOWN]) + more


def suffixes(names: Iterable[str]) -> "Counter[str]":
    """How many of the files bear each suffix."""
    return Counter(os.path.splitext(name)[1].lower() or "no suffix" for name in names)


def counted(count: int, noun: str) -> str:
    """`1 file`, `1,200 files`."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def first_few(names: Sequence[str]) -> str:
    """Three of the names, and whether there are more."""
    return ", ".join(names[:3]) + ", …" * (len(names) > 3)


def left_out(why: str, names: Sequence[str], noun: str = "file") -> list[str]:
    """A note of how many are not taken and which is the first of them; none where all are."""
    return [f"left out, {why}: {counted(len(names), noun)} ({as_text(names[0])})"] if names else []


def _set_aside(name: str) -> "str | None":
    """The part of a file's or folder's name for which it is left out; None where it is taken."""
    folder, _, last = name.rpartition("/")
    return _hidden(folder) or _hidden_part(last)


@functools.lru_cache(maxsize=4096)
def _hidden(folder: str) -> "str | None":
    return next((why for part in folder.split("/") if (why := _hidden_part(part))), None)


def _hidden_part(part: str) -> "str | None":
    if part.startswith("._"):
        return "._*"
    return part if part.lower() in TOOL_NAMES or (part.startswith(".") and part not in (".", "..")) else None


def _walk(root: Path, deep: bool) -> "tuple[list[str], set[str], list[str], Counter[str]]":
    names: list[str] = []
    folders: set[str] = set()
    loops: list[str] = []
    aside = Counter[str]()

    def unlisted(fault: OSError) -> None:
        raise CompressError(f"{fault.filename}: cannot be listed ({fault.strerror}); make it readable or remove it")

    for folder, inner, files in os.walk(root, followlinks=True, onerror=unlisted):
        inside = folder[len(str(root)) :].lstrip("/")
        prefix = f"{inside}/" if inside else ""
        for name in [*inner]:
            if (why := _hidden_part(name)) is not None:  # neither followed nor entered further than it takes to count
                aside[why] += _files_below(os.path.join(folder, name))
            elif _leads_back(root, folder, name):
                loops.append(prefix + name)
            else:
                folders.add(prefix + name)
                continue
            inner.remove(name)
        names += [prefix + file for file in files]
        if not deep:
            break
    notes = [f"left out: {counted(len(loops), 'link')} back to a folder above ({as_text(min(loops))})"] if loops else []
    return names, folders, notes, +aside


def _files_below(folder: str) -> int:
    """How many files lie in a folder, none where it cannot be read, a link counting as one; at most `COUNTED`."""
    if os.path.islink(folder):
        return 1
    return len([*itertools.islice((file for _, _, files in os.walk(folder) for file in files), COUNTED)])


def _leads_back(root: Path, folder: str, name: str) -> bool:
    """Whether `name` in `folder` is a link to a folder that the walk from `root` came through, or to one above it."""
    link = os.path.join(folder, name)
    if not os.path.islink(link):
        return False
    target, passed = os.path.realpath(link), [folder]
    while passed[-1] != str(root):
        passed.append(os.path.dirname(passed[-1]))
    return any(f"{os.path.realpath(place)}/".startswith(f"{target.rstrip('/')}/") for place in passed)


def _members(path: Path) -> "tuple[list[str], set[str], list[str], Counter[str]]":
    with read_safely(path):
        if zipfile.is_zipfile(path):
            names, folders, notes = _zip_members(path)
        elif tarfile.is_tarfile(path):
            names, folders, notes = _tar_members(path)
        else:
            raise CompressError(f"{path}: neither a folder nor a readable tar or zip; fetch or pack the archive again")
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        notes.append(f"twice in the archive, the last counts: {counted(len(twice), 'name')} ({as_text(twice[0])})")
    return list(dict.fromkeys(names)), folders, notes, Counter()


def _zip_members(path: Path) -> "tuple[list[str], set[str], list[str]]":
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    for member in members:
        if stat.S_ISLNK(member.external_attr >> 16) and _set_aside(member.filename) is None:
            raise CompressError(f"{path}: {member.filename} is a link in the archive; pack it anew without zip -y")
    names = [member.filename for member in members if not member.is_dir()]
    guessed = [
        member.filename
        for member in members
        if not (member.flag_bits & ZIP_UTF8 or member.filename.isascii() or member.is_dir())
        and _set_aside(member.filename) is None
    ]
    what = "names of no stated encoding, read as code page 437"
    notes = [f"{what}: {counted(len(guessed), 'name')} ({guessed[0]})"] if guessed else []
    return names, {member.filename.rstrip("/") for member in members if member.is_dir()}, notes


def _tar_members(path: Path) -> "tuple[list[str], set[str], list[str]]":
    names, folders = [], set()
    with tarfile.open(path, "r|*", tarinfo=WholeTar) as stream:
        for member in stream:
            if (member.issym() or member.islnk()) and _set_aside(member.name) is None:
                raise CompressError(
                    f"{path}: {as_text(member.name)} is a link in the archive; pack it anew with tar --dereference "
                    f"--hard-dereference"
                )
            if member.isreg():
                names.append(member.name)
            elif member.isdir():
                folders.add(member.name)
        more = _behind_the_end(stream.fileobj)
    joined = "not read: what lies behind the end of the archive, as `cat a.tar b.tar` leaves it; pack it anew"
    return names, folders, [joined] * more


def _behind_the_end(stream: Any) -> bool:
    """Whether more than zeros follows the mark at which tar stops reading."""
    while block := stream.read(1 << 16):
        if block.strip(b"\0"):
            return True
    # of gzip a checksum and a length follow, then another member
    return len(getattr(getattr(stream, "cmp", None), "unused_data", b"")) > 8
