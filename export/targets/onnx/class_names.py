"""The names that a file of another tool gives its classes, in its metadata or in a file beside it, and their order."""

import ast
import contextlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from edge.core.errors import CompressError

#: Keys of metadata that hold class names, as exporters write them; the first that is there counts.
KEYS = ("class_names", "classes", "labels", "names", "id2label", "label2id", "label_names", "categories")
MOST_NAMED, MOST_LETTERS = 3, 40  # names that a line quotes, and how much of each


@dataclass(frozen=True)
class ClassNames:
    """`names` in the file's order, None where it gives none. `source`: where they stand; `unread`: why they are not."""

    names: "tuple[str, ...] | None" = None
    source: str = ""
    unread: str = ""


@dataclass(frozen=True)
class ClassOrder:
    """`names` as contract.json has them; `order`: the file's class in the place of each of the dataset's, None where
    both have one order; `note` what is worth a word."""

    names: tuple[str, ...]
    order: "tuple[int, ...] | None" = None
    note: str = ""


def names_in_metadata(proto: onnx.ModelProto, classes: int) -> ClassNames:
    """Of the first key of `KEYS` that holds as many names as there are classes."""
    metadata = {entry.key.lower(): entry.value for entry in proto.metadata_props}
    unread = ""
    for key in KEYS:
        if key not in metadata:
            continue
        names = _listed(metadata[key])
        if names is not None and len(names) == classes:
            return ClassNames(names, f"its metadata ({key})")
        held = "no list of names" if names is None else f"{len(names)} names for {classes} classes"
        unread = unread or f"its metadata's {key} holds {held} and is not read"
    return ClassNames(unread=unread)


def names_in_file(path: Path, classes: int) -> ClassNames:
    """Of --labels: a name a line, or JSON: a list, or an object of numbers and names."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as fault:
        raise CompressError(f"--labels {path}: cannot be read ({fault}); give a text file, a name a line") from None
    names = _listed(text) or ()
    if len(names) != classes:
        raise CompressError(f"--labels {path}: {len(names)} names, the file tells {classes} classes apart; one a class")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise CompressError(f"--labels {path}: {twice!r} is there twice; classes need names of their own")
    return ClassNames(names, f"--labels {path.name}")


def ordered(own: ClassNames, dataset: "Sequence[str]", data: str) -> ClassOrder:
    """How the file's classes stand to the dataset's: by name, where both give the same ones."""
    theirs = tuple(dataset)
    if own.names is None:
        return ClassOrder(theirs, note=own.unread)
    keys, known = [_key(name) for name in own.names], [_key(name) for name in theirs]
    if keys == known:
        return ClassOrder(theirs)
    if len(set(keys)) == len(keys) and set(keys) == set(known):
        order = tuple(keys.index(key) for key in known)
        return ClassOrder(
            theirs,
            order,
            f"its classes ({_quoted(own.names)}, by {own.source}) are put into the order of {data} ({_quoted(theirs)})",
        )
    if all(name.isdigit() for name in theirs):  # numbers name no class
        return ClassOrder(own.names, note=f"its classes are named by {own.source}: {_quoted(own.names)}")
    differ = [place for place in range(len(keys)) if keys[place] != known[place]]
    first = differ[0]
    return ClassOrder(
        theirs,
        note=f"{len(differ)} of its {len(keys)} classes are called otherwise by {own.source} than in {data} "
        f"({first}: {own.names[first]!r}, {theirs[first]!r}); the order is taken to be the same",
    )


def _key(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def _quoted(names: "Sequence[str]") -> str:
    short = [name if len(name) <= MOST_LETTERS else f"{name[:MOST_LETTERS]}…" for name in names[:MOST_NAMED]]
    return ", ".join(short) + (", …" if len(names) > MOST_NAMED else "")


def _in_one_line(name: str) -> str:
    """With single spaces, and what a terminal would obey as an escape."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in " ".join(name.split())
    )


def _listed(text: str) -> "tuple[str, ...] | None":
    """Names as JSON or Python writes a list or a mapping of them, else a name a line, else between commas."""
    names = _separated(text.strip())
    return None if names is None else tuple(map(_in_one_line, names))


def _separated(text: str) -> "tuple[str, ...] | None":
    if text.startswith(("[", "{", "(")):
        for read in (json.loads, ast.literal_eval):
            with contextlib.suppress(ValueError, SyntaxError, TypeError, OverflowError, RecursionError, MemoryError):
                return _in_order(read(text))
        return None
    parts = text.splitlines() if "\n" in text else text.split("," if "," in text else ";")
    names = tuple(part.strip() for part in parts if part.strip())
    numbered = [re.fullmatch(r"(\d+)[\s:,]+(.+)", name) for name in names]  # `0 airplane`
    by_number = {int(match[1]): match[2] for match in numbered if match}
    if names and sorted(by_number) == list(range(len(names))):
        names = tuple(by_number[number] for number in range(len(names)))
    return names or None


def _in_order(listed: Any) -> tuple[str, ...]:
    """Of {number: name}, of {name: number}, or of a list; ValueError where what it holds are no names."""
    if not isinstance(listed, dict):
        if not all(isinstance(name, str | int) for name in listed):
            raise ValueError("no list of names")
        return tuple(str(name) for name in listed)
    try:
        by_number = {int(number): str(name) for number, name in listed.items()}
    except ValueError:
        by_number = {int(number): str(name) for name, number in listed.items()}
    if sorted(by_number) != list(range(len(by_number))):
        raise ValueError("numbers with gaps")
    return tuple(by_number[number] for number in range(len(by_number)))
