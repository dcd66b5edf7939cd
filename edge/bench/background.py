"""Something that runs beside what is timed: busy processes, or a command of the user's. Standard library only."""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from edge.core.errors import CompressError

#: Says that it runs, then computes until its parent is gone.
BUSY = """
import os, sys
parent = os.getppid()
sys.stdout.write("1"); sys.stdout.flush()
while os.getppid() == parent:
    sum(range(100_000))
"""
SETTLE_S = 0.2


def check_load(asked: "str | None") -> None:
    """Whether `asked` can be started at all: N processes from 1 on, or a command that is installed."""
    if asked is None:
        return
    if asked.strip().isdigit():
        if int(asked) < 1:
            raise CompressError(f"--load {asked}: a number of busy processes, at least 1, or a command is needed")
        return
    _split(asked)


@contextlib.contextmanager
def load_running(asked: "str | None") -> "Iterator[dict[str, Any] | None]":
    """`asked` runs inside; what it is as {"processes"} or {"command"}, None where nothing is asked."""
    if asked is None:
        yield None
        return
    check_load(asked)
    number = asked.strip()
    command = not number.isdigit()
    started = [_command(asked)] if command else _busy(int(number))
    try:
        yield {"command": asked} if command else {"processes": int(number)}
        if command and started[0].poll() is not None:
            raise CompressError(
                f"--load {asked!r}: ended before the measurement did (exit code {started[0].returncode}); "
                "give a command that runs longer"
            )
    finally:
        for process in started:
            # The process and all that it started
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


def _split(command: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError as fault:
        raise CompressError(f"--load {command!r}: {fault}; quote it as for a shell") from None
    if not words or shutil.which(words[0]) is None:
        raise CompressError(f"--load {command!r}: no such program; give a number of busy processes or a command")
    return words


def _command(command: str) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(
        _split(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    time.sleep(SETTLE_S)
    if process.poll() is not None:
        raise CompressError(
            f"--load {command!r}: ended at once (exit code {process.returncode}); give a command that keeps running"
        )
    return process


def _busy(count: int) -> "list[subprocess.Popen[bytes]]":
    arguments = [sys.executable, "-I", "-S", "-c", BUSY]
    started = [
        subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True)
        for _ in range(count)
    ]
    for process in started:
        assert process.stdout is not None
        process.stdout.read(1)
    return started
