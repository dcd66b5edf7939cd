"""Recorded boards: `unpack("orin-nano", folder)` writes the files that a `--sysroot` reads.

A .tree file holds one file a line, `PATH VALUE`, where `cpu[0-5]` in a path stands for six files and `\\0` for a zero
byte; a text of several lines stands between `PATH <<` and a line with `<<` alone. Written by hand in the formats of the
Jetson Linux Developer Guide and of the kernel's sysfs; no file was read on a real board.
"""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
BOARDS = ("orin-nano", "orin-nx", "agx-orin", "thor")


def unpack(board: str, folder: Path) -> Path:
    """`folder`, with the board's files below it."""
    for path, content in files(board):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)
    return folder


def files(board: str) -> Iterator[tuple[str, str]]:
    """Every path with its content."""
    lines = iter((HERE / f"{board}.tree").read_text().splitlines())
    for line in lines:
        if not line.strip() or line.startswith("#"):
            continue
        path, _, value = line.partition(" ")
        if value == "<<":
            value = "\n".join(itertools.takewhile(lambda text: text != "<<", lines))
        for one in _expanded(path):
            yield one, value.replace("\\0", "\0") + "\n"


def _expanded(path: str) -> Iterator[str]:
    found = re.search(r"\[(\d+)-(\d+)\]", path)
    if found is None:
        yield path
        return
    for number in range(int(found[1]), int(found[2]) + 1):
        yield path[: found.start()] + str(number) + path[found.end() :]
