"""What installed packages add: one object an entry point, in groups `robust_compress.GROUP`. Standard library only.

Names are read from the packages' metadata; an object is imported when it is used.
"""

import functools
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

from edge.core.errors import CompressError
from edge.core.progress import say

Added = TypeVar("Added")

GROUPS = ("targets", "methods", "networks", "datasets", "attacks")


@functools.cache
def installed(group: str) -> "dict[str, EntryPoint]":
    """Name → entry point of every object that installed packages add to one of `GROUPS`.

    Two packages that add the same name: CompressError.
    """
    added: dict[str, EntryPoint] = {}
    for point in entry_points(group=f"robust_compress.{group}"):
        if point.name in added and point.value != added[point.name].value:
            raise CompressError(
                f"{group} {point.name!r}: added by {added[point.name].value} and by {point.value}; uninstall one"
            )
        added[point.name] = point
    return added


def load(group: str, name: str, kind: "type[Added]") -> "Added":
    """The object behind a name in `installed(group)`, of the class `kind`.

    CompressError for a package that cannot be imported, and for an object that is something else.
    """
    point = installed(group)[name]
    try:
        added = point.load()
    except Exception as fault:  # whatever another package raises while it is imported
        raise CompressError(
            f"{group} {name!r}: {point.value} cannot be imported ({type(fault).__name__}: {fault}); uninstall it"
        ) from None
    if not isinstance(added, kind):
        raise CompressError(
            f"{group} {name!r}: {point.value} is a {type(added).__name__}, not a {kind.__module__}.{kind.__name__}; "
            f"uninstall it"
        )
    if (own := getattr(added, "name", name)) != name:
        raise CompressError(f"{group} {name!r}: {point.value} names itself {own!r}; give its entry point that name")
    return added


def loaded(group: str, kind: "type[Added]") -> "Iterator[Added]":
    """Every object that installed packages add to a group. What `load` refuses is left out, and why is said once.

    One broken package then stops nothing but what asks for it by name.
    """
    for name in installed(group):
        added = _usable(group, name, kind)
        if added is not None:
            yield added


def _usable(group: str, name: str, kind: "type[Added]") -> "Added | None":
    try:
        return load(group, name, kind)
    except CompressError as fault:
        _say_once(f"left out: {fault}")
        return None


@functools.cache
def _say_once(line: str) -> None:
    say(line)
