"""A name out of those that are known, or one line with the nearest and all of them. Standard library only."""

from difflib import get_close_matches

from edge.core.errors import CompressError


def nearest(name: str, names: "list[str] | tuple[str, ...] | dict[str, str]") -> str:
    """`; did you mean 'x'?` for a name close to a known one, else an empty string."""
    close = get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def known(kind: str, name: str, names: "tuple[str, ...] | dict[str, str]") -> str:
    """`name` itself when it is known; otherwise one line with the nearest name and all of them."""
    if name not in names:
        raise CompressError(f"unknown {kind} {name!r}{nearest(name, names)} (known: {', '.join(names)})")
    return name
