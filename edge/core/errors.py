"""The errors a user can meet, by exit code.

    CompressError        2   the user's input: what was wrong, what was found, how to fix it
    └── CheckFailed      3   everything ran, but a requirement, parity or validity check failed

Any other exception is our bug (exit 1, with its traceback); an interrupt exits 130.
"""


class CompressError(Exception):
    """The user's input is at fault. The message is one line: what, got, fix."""

    exit_code = 2


class CheckFailed(CompressError):
    """The work ran to its end and a check on its result failed."""

    exit_code = 3


def first_line(fault: "BaseException | str", most: int = 200) -> str:
    """What a foreign exception says, short enough for one line; its type where it says nothing."""
    return next(iter(str(fault).strip().splitlines()), type(fault).__name__)[:most]


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
