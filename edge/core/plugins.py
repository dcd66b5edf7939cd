"""What installed packages add: one object an entry point, in groups `robust_compress.GROUP`. Standard library only.

Names are read from the packages' metadata; an object is imported when it is used.
"""

import contextlib
import functools
import os
import sys
import traceback
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

from edge.core.errors import CompressError
from edge.core.progress import say_once
from edge.core.user_code import in_words
from edge.core.user_source import OURS

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
        with contextlib.redirect_stdout(sys.stderr):
            added = point.load()
    except (Exception, SystemExit) as fault:  # whatever another package raises while it is imported
        raise CompressError(
            f"{group} {name!r}: {point.value} cannot be imported ({in_words(fault)}); uninstall it"
        ) from None
    if not isinstance(added, kind):
        raise CompressError(
            f"{group} {name!r}: {point.value} is a {type(added).__name__}, not a {kind.__module__}.{kind.__name__}; "
            f"uninstall it"
        )
    if (own := getattr(added, "name", name)) != name:
        raise CompressError(f"{group} {name!r}: {point.value} names itself {own!r}; give its entry point that name")
    return added


def package_fault(fault: BaseException) -> "CompressError | None":
    """The line about a fault that an installed package's own code raised; None for one that is ours.

    Whose it is, the innermost frame of the two says: what a library raises is the fault of whoever called it.
    """
    points = [point for group in GROUPS for point in installed(group).values()]
    roots = {point.module.partition(".")[0] for point in points} - OURS
    for frame, line in reversed(list(traceback.walk_tb(fault.__traceback__))):
        root = str(frame.f_globals.get("__name__")).partition(".")[0]
        if root in OURS:
            return None
        if root in roots:
            place = f"{os.path.basename(frame.f_code.co_filename)}:{line}"
            return CompressError(
                f"the installed package {root}: raised {in_words(fault)} at {place}; mend it or uninstall it"
            )
    return None


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
        say_once(f"left out: {fault}")
        return None
