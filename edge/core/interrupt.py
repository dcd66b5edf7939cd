"""A wish to stop. A training loop ends its step, saves and raises; everything else ends at once. Standard library only.

Stage folders are safe against a kill at any moment, so there is nothing to unwind.
"""

import contextlib
import os
import select
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import NoReturn

#: How long a loop may take to end its step and save.
GRACE_S = 5.0
EXIT_CODE = 130


class Interrupted(BaseException):
    """A loop has saved where it stands because signal `number` asked it to stop."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


#: What is said in place of the usual line: "" is nothing, None the usual one.
instead: "list[Callable[[], str | None]]" = []
_asked: list[int] = []
_loops: list[object] = []
_ending = threading.Lock()


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Inside, a signal only sets `asked`, and whoever is inside saves and raises `Interrupted` soon."""
    _asked.clear()
    _loops.append(None)
    try:
        yield
    finally:
        _loops.pop()
    if number := asked():
        raise Interrupted(number)


def asked() -> "int | None":
    """The signal that asked the loop to stop."""
    return _asked[0] if _asked else None


def ask(number: int) -> bool:
    """Ask the loop, if one is running, to stop; whether one is."""
    if _loops:
        _asked.append(number)
    return bool(_loops)


def watch(numbers: Sequence[int]) -> None:
    """Take these signals over for the life of the process.

    A thread answers them: Python's own handlers wait for the end of the call that the main thread is in, which in the
    middle of a training step can be a minute away.
    """
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write)
    for number in numbers:
        signal.signal(number, _nothing)
    threading.Thread(target=_answer, args=(read,), daemon=True).start()


def _nothing(number: int, frame: "FrameType | None") -> None:
    """A handler must exist for the signal's number to be written to the pipe."""


def _answer(read: int) -> None:
    number = os.read(read, 1)[0]
    if ask(number):
        select.select([read], [], [], GRACE_S)  # a second signal ends the wait
    end(number)


def end(number: int) -> NoReturn:
    """Say it and leave, exit code 130, from whatever thread."""
    line = f"interrupted ({signal.Signals(number).name}); the same command resumes where it stopped"
    for other in instead:  # before the lock: it may wait for the thread that is about to say the last line
        line = line if (said := other()) is None else said
    _ending.acquire()  # never released: the line is said once
    start = "\n" if os.isatty(2) else ""  # a progress line may stand there
    if line:
        with contextlib.suppress(OSError):  # stderr may be full or gone; the process ends all the same
            os.write(2, f"{start}compress: {line}\n".encode())
    os._exit(EXIT_CODE)
