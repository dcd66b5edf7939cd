"""Part and class of image files by where they lie: PART/CLASS/…/FILE or CLASS/…/FILE.

What is nearly such a layout is asked about, not guessed: a guess that is wrong moves labels or makes parts to classes.
"""

import functools
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from compress.data.dataset import SPLITS
from compress.data.listing import Listing, as_text, counted, first_few, most, suffixes
from compress.data.parts import PARTS, is_word_for_part, sounds_like_part
from edge.core.errors import CompressError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".pnm")
#: Taken for these parts where all parts hold the same classes: the PNG copies of MNIST are laid out so.
FURTHER = {"training": "train", "testing": "test"}
MERGE = "nested=merge"


class Member(NamedTuple):
    """One image file: its part of the split (empty when the source has none), class, name, and place below the part."""

    part: str
    label: str
    name: str
    place: tuple[str, ...]


class Arrangement(NamedTuple):
    """The image files in the order of the dataset, the classes in that of their labels, what was left out."""

    members: list[Member]
    classes: list[str]
    notes: list[str]


def arrange(listing: Listing, where: str, merge: bool = False) -> Arrangement:
    """Part and class of every image file. `merge`: folders inside a class are the class's own, whatever their names."""
    places = {name: place for name in listing.files if name.lower().endswith(SUFFIXES) and (place := _place(name))}
    notes = list(listing.notes)
    if others := suffixes(name for name in listing.files if name not in places):
        notes.append(f"left out, of no kind that is read: {counted(others.total(), 'file')} ({most(others)})")
    if not places:
        raise CompressError(
            f"{where}: no image in it ({', '.join(SUFFIXES)}){''.join(f'; {note}' for note in notes)}; put images into "
            f"train/CLASS/ and test/CLASS/"
        )
    top = _wrapper(places.values(), listing)
    if top:
        notes.append(f"read from {as_text(top)}/, which holds all images")
        places = {name: place[1:] for name, place in places.items()}
    parts = _parts(places.values(), where, merge)
    notes += [f"{folder}/ is taken for {part}/" for folder, part in parts.items() if folder.lower() not in PARTS]
    members, beside, text = [], Counter[str](), functools.cache(as_text)
    for name, place in places.items():
        if parts and place[0] not in parts:
            beside[place[0]] += 1
            continue
        part, inner = (parts[place[0]], place[1:]) if parts else ("", place)
        if len(inner) < 2:
            beside_classes = f"{as_text(place[0])}/" if parts else ""
            raise CompressError(f"{where}: {as_text(name)} lies in no class folder; put it into {beside_classes}CLASS/")
        members.append(Member(part, text(inner[0]), name, inner))
    if beside:
        notes.append(
            f"left out, beside {'/, '.join(sorted(parts))}/: {counted(beside.total(), 'image')} ({most(beside)})"
        )
    _refuse_without_images(members, listing, top, parts, where)
    classes = _classes(members, where)
    notes += _odd_names(members, classes, where) + _inner_folders(members, where, merge)
    rank = {part: place for place, part in enumerate(("", *SPLITS))}
    members.sort(key=lambda member: (rank[member.part], member.label, member.place))
    return Arrangement(members, classes, notes)


def _place(name: str) -> tuple[str, ...]:
    folder, _, last = name.rpartition("/")
    return (*_folders_of(folder), last) if last not in ("", ".") else _folders_of(folder)


@functools.lru_cache(maxsize=4096)  # a million files lie in a thousand folders
def _folders_of(folder: str) -> tuple[str, ...]:
    return tuple(part for part in folder.split("/") if part not in ("", "."))


def _wrapper(places: "Iterable[tuple[str, ...]]", listing: Listing) -> str:
    """The one folder that all parts, or all classes, lie in; empty where these lie at the top."""
    if len({place[0] for place in places}) > 1 or any(len(place) < 3 for place in places):
        return ""
    top, *_ = next(iter(places))
    beside = {folder[0] for folder in map(_place, listing.folders) if folder} - {top}
    if top.lower() in PARTS or any(place[1].lower() in PARTS for place in places):
        return "" if top.lower() in PARTS else top
    return "" if beside or is_word_for_part(top) else top


def _parts(places: "Iterable[tuple[str, ...]]", where: str, merge: bool) -> dict[str, str]:
    """Which folder is which part of the split; none where the folders are classes."""
    inside: dict[str, set[str]] = {}
    for folder, *deeper in (place[:-1] for place in places if len(place) > 1):
        inside.setdefault(folder, set()).add(deeper[0] if deeper else "")  # an image that lies there itself: ""
    parts = {folder: PARTS[folder.lower()] for folder in inside if folder.lower() in PARTS}
    sounding = sorted(folder for folder in inside if folder not in parts and sounds_like_part(folder))
    further = parts | {folder: FURTHER[folder.lower()] for folder in sounding if folder.lower() in FURTHER}
    known = "train" in further.values() and set(further) == set(inside)
    first = next((inside[folder] for folder in further), set())
    if sounding and known and "" not in first and all(inside[folder] == first for folder in further):
        parts, sounding = further, []
    for part in set(parts.values()):
        folders = sorted(folder for folder in parts if parts[folder] == part)
        if len(folders) > 1:
            raise CompressError(
                f"{where}: {folders[0]}/ and {folders[1]}/ are both the {part} part; join them or rename one"
            )
    if sounding and parts:
        raise CompressError(
            f"{where}: {as_text(sounding[0])}/ beside {'/, '.join(sorted(parts))}/ sounds like a part of the data and "
            f"is none that is known; rename it train, val or test, or move it away"
        )
    deep = [folder for folder in sounding if inside[folder] != {""}]
    if sounding and not merge and (deep or len(sounding) == len(inside)):
        raise CompressError(
            f"{where}: {as_text((deep or sounding)[0])}/ sounds like a part of the data, not like a class; lay the "
            f"images out as train/CLASS/ and test/CLASS/ (or, if it is a class, write {where}?{MERGE})"
        )
    return parts


def _refuse_without_images(
    members: list[Member], listing: Listing, top: str, parts: Mapping[str, str], where: str
) -> None:
    """A class folder that no image comes from: left out it would move the labels of the classes behind it."""
    head = (top,) if top else ()
    depth = len(head) + bool(parts) + 1
    class_folders = {
        folder
        for folder in map(_place, listing.folders)
        if len(folder) == depth and folder[: len(head)] == head and (not parts or folder[len(head)] in parts)
    }
    held = {_folders_of(folder)[:depth] for folder in {member.name.rpartition("/")[0] for member in members}}
    empty = sorted(class_folders - held)
    if empty:
        files = suffixes(name for name in listing.files if _place(name)[:depth] == empty[0])
        what = f"{counted(files.total(), 'file')}, no image that is read ({most(files)})" if files else "no file"
        fix = "convert them to PNG, or remove the folder" if files else "fill it, or remove it"
        if len(held) == 1 and not parts:  # images/CLASS/ beside annotations/
            fix = f"give {where}/{as_text('/'.join(*held))} if the classes lie in there"
        raise CompressError(f"{where}: {as_text('/'.join(empty[0]))}/ stands where classes are and holds {what}; {fix}")


def _classes(members: list[Member], where: str) -> list[str]:
    by_part: dict[str, set[str]] = {}
    for member in members:
        by_part.setdefault(member.part, set()).add(member.label)
    base = "train" if "train" in by_part else members[0].part
    for part, labels in by_part.items():
        odd = sorted(labels ^ by_part[base])
        if odd:
            there, missing = (part, base) if odd[0] in labels else (base, part)
            close = [name for name in by_part[missing] if _folded(name) == _folded(odd[0])]
            if close:
                raise CompressError(
                    f"{where}: class {odd[0]!a} of {there}/ is called {close[0]!a} in {missing}/; give both one name"
                )
            raise CompressError(
                f"{where}: class {odd[0]!r} has images in {there}/ and none in {missing}/; give both the same classes"
            )
    return sorted(by_part[base])


def _odd_names(members: list[Member], classes: list[str], where: str) -> list[str]:
    """What is odd about the classes' names: two that look alike, numbers in the order of text, bytes of no text."""
    raw = {member.place[0] for member in members}
    if len(raw) > len(classes):
        raise CompressError(f"{where}: two class folders have one name once it is read as text; rename one of them")
    notes = []
    if escaped := sorted(as_text(name) for name in raw if as_text(name) != name):
        shown = f"{counted(len(escaped), 'name')} ({first_few(escaped)})"
        notes.append(f"names that are not UTF-8 or hold controls are read with escapes: {shown}")
    alike: dict[str, list[str]] = {}
    for name in classes:
        alike.setdefault(_folded(name), []).append(name)
    if pairs := [names for names in alike.values() if len(names) > 1]:
        shown = f"{counted(len(pairs), 'group')} ({first_few([' and '.join(map(ascii, names)) for names in pairs])})"
        notes.append(f"classes whose names differ in case, spaces or accents' encoding alone stay apart: {shown}")
    if all(name.isdecimal() for name in classes) and sorted(classes, key=int) != classes:
        shown = f"{counted(len(classes), 'name')} ({first_few(classes)})"
        notes.append(f"labels follow the names as text, not as numbers: {shown}")
    return notes


def _folded(name: str) -> str:
    """The same for names that differ in case, spaces or the way that Unicode composes them."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def _inner_folders(members: list[Member], where: str, merge: bool) -> list[str]:
    """Images that lie deeper than their class: asked about where the deeper folders may be the classes, else said."""
    deeper = [member for member in members if len(member.place) > 2]
    if not deeper:
        return []
    inside: dict[str, set[str]] = {}
    for member in deeper:
        inside.setdefault(member.label, set()).add(member.place[1])
    times = Counter(name for names in inside.values() for name in names)
    shared = sorted(name for name, count in times.items() if count > 1 or sounds_like_part(name))
    if len(shared) > 1 and not merge:
        first, second, *_ = map(as_text, shared)
        raise CompressError(
            f"{where}: {first}/ and {second}/ lie inside {len(inside)} of the folders that would be classes "
            f"({', '.join(sorted(inside)[:3])}); put the classes' folders at the top or into train/ and test/, or "
            f"write {where}?{MERGE} if each image belongs to the upper folder"
        )
    return [
        f"deeper than their class's folder, of that class: {counted(len(deeper), 'image')} ({as_text(deeper[0].name)})"
    ]
