"""This process's stdin, stdout and stderr, which may be closed, full or of another encoding; and what is said there
when a command ends in a fault. Standard library only.
"""

import codecs
import io
import os
import sys
from collections.abc import Sequence
from typing import Any, TextIO

from edge.core import errors
from edge.core.errors import CompressError, MachineFault

STDOUT = "stdout"  # the file that an OSError of it names
CLOSED = "stdout: is closed; redirect it to a file, or to /dev/null, and repeat the command"
ESCAPES = "compress-json-escapes"
BROKEN_PIPE = 141  # the exit code by which a shell reports a process that SIGPIPE ended


class _Stdout(io.FileIO):
    """Says its name when it cannot be written, which tells its faults from those of other open files."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except OSError as fault:
            fault.filename = STDOUT
            raise


class _Stderr(io.FileIO):
    """Fails at nothing: a terminal that is gone stops no work, and what is said there decides no exit code."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except OSError:
            return len(data)


def prepare() -> None:
    """Call first in a process: from then on the three streams exist. A stdout that was closed is a MachineFault.

    A file that is opened while the number of a stream is free would get that number, and with it all that is printed.
    """
    closed = [number for number in (0, 1, 2) if not _is_open(number)]
    for _ in closed:
        os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number: the stream's own
    if sys.stdin is None:
        sys.stdin = open(os.devnull)  # noqa: SIM115 - for the life of the process
    codecs.register_error(ESCAPES, _escaped)
    sys.stderr = _text(_Stderr(2, "w", closefd=False), sys.stderr, "backslashreplace")
    sys.stdout = _text(_Stdout(1, "w", closefd=False), sys.stdout, ESCAPES)
    if 1 in closed:
        raise MachineFault(CLOSED)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _text(raw: io.FileIO, old: "TextIO | None", errors: str) -> io.TextIOWrapper:
    """What Python would have opened in its place: the old one's encoding, whole lines on a terminal and on stderr."""
    encoding, kept = (old.encoding, old.errors) if old is not None else ("utf-8", "strict")
    lines = raw.fileno() == 2 or raw.isatty()
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding, errors if kept in (None, "strict") else kept, line_buffering=lines
    )


def _escaped(fault: UnicodeError) -> "tuple[str, int]":
    """What the encoding lacks as `\\uXXXX`, which JSON reads as well."""
    if not isinstance(fault, UnicodeEncodeError):
        raise fault
    units = fault.object[fault.start : fault.end].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2)), fault.end


def text_bytes(text: str) -> bytes:
    """UTF-8; a byte of a file's name that is none becomes the escape by which JSON writes it, `\\udce9`."""
    return text.encode("utf-8", "backslashreplace")


def exit_code_of(fault: Exception, args: Sequence[str]) -> int:
    """The exit code of the command `args` that `fault` ended, once it was told.

    In one line, with `--json` in an object on stdout too; by a traceback where the fault is ours.
    """
    if getattr(fault, "filename", None) == STDOUT:
        silence_stdout()
        if isinstance(fault, BrokenPipeError):
            return BROKEN_PIPE
    told: CompressError | None
    if isinstance(fault, CompressError):
        told = errors.told_fault(fault)
    else:
        from edge.core import plugins  # what it imports would slow down every `--help`

        told = errors.machine_fault(fault) or plugins.package_fault(fault)
    if told is not None:
        return tell_fault(str(told), told.exit_code, args)
    import traceback

    traceback.print_exception(fault)
    print("compress: this is a fault of compress itself; please report the lines above", file=sys.stderr)
    return 1


def tell_fault(message: str, exit_code: int, args: Sequence[str]) -> int:
    """Say the line, and return the exit code."""
    if "--json" in args:
        import json

        try:
            print(json.dumps({"error": message, "exit_code": exit_code}, ensure_ascii=False), flush=True)
        except OSError:  # stdout may be what failed
            silence_stdout()
    print(f"compress: {message}", file=sys.stderr)
    return exit_code


def silence_stdout() -> None:
    """What is left in its buffer goes nowhere, else Python's own flush at exit complains again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
