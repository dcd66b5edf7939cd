"""Progress on stderr: one rewritten line on a terminal, now and then a line elsewhere. Standard library only."""

import contextlib
import functools
import math
import shutil
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

REDRAW_S = 0.1
LINE_S = 10.0
ERASE = "\r\x1b[K"

#: What takes the place of stderr where nobody watches it: called with {"say"}, or {"label", "total", "done", "note",
#: "end"}, `end` being None while the loop runs, then whether it came to its end.
listener: "Callable[[dict[str, Any]], None] | None" = None
TOLD_S = 0.5  # least time between two calls of it by one bar


def say(line: str) -> None:
    """Write one line to stderr, over a bar's line if there is one."""
    if listener is not None:
        listener({"say": line})
    else:
        _write((ERASE if _terminal() else "") + line + "\n")


@functools.cache
def say_once(line: str) -> None:
    """The same, once in the life of this process."""
    say(line)


def _write(text: str) -> None:
    """What nobody can read any more (its terminal is gone, its disk full) stops no work."""
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr is not None:
            sys.stderr.write(text)
            sys.stderr.flush()


def _terminal() -> bool:
    return sys.stderr is not None and not sys.stderr.closed and sys.stderr.isatty()


class Progress:
    """How far a loop is: `with Progress("square", 1000) as bar: bar.step(k, note="…")`.

    `total` is in whatever the steps count, `done` of them by another process before. A line carries the time left: on a
    terminal it is rewritten, elsewhere one is written at most every ten seconds, and one at the end.
    """

    def __init__(self, label: str, total: int, done: int = 0) -> None:
        self.label, self.total = label, total
        self.done, self.note = done, ""
        self._before, self._most_s = done, math.inf
        self.started = self.shown = time.monotonic()

    def __enter__(self) -> "Progress":
        self.started = self.shown = time.monotonic()
        return self

    def __exit__(
        self, kind: "type[BaseException] | None", fault: "BaseException | None", trace: "TracebackType | None"
    ) -> None:
        if listener is not None:
            self._tell(kind is None)
        else:
            say(self._line(f"in {_clock(self._elapsed())}" if kind is None else "stopped"))

    def step(self, k: int = 1, note: str = "", most_s: "float | None" = None) -> None:
        """`k` more are done; `note` stands on the line until another one replaces it.

        `most_s`: the seconds after which a budget ends the loop, whatever is left of it.
        """
        self.done += k
        self.note = note or self.note
        self._most_s = math.inf if most_s is None else most_s
        now = time.monotonic()
        if listener is not None:
            if now - self.shown >= TOLD_S:
                self.shown = now
                self._tell(None)
            return
        terminal = _terminal()
        if now - self.shown < (REDRAW_S if terminal else LINE_S):
            return
        self.shown = now
        if terminal:
            width = shutil.get_terminal_size().columns - 1
            _write(ERASE + self._line(self._left())[:width])
        else:
            say(self._line(self._left()))

    def _tell(self, end: "bool | None") -> None:
        assert listener is not None
        listener({"label": self.label, "total": self.total, "done": self.done, "note": self.note, "end": end})

    def _line(self, timing: str) -> str:
        parts = [f"{self.label} {self.done:,}/{self.total:,}", timing, self.note]
        return "  ".join(part for part in parts if part)

    def _left(self) -> str:
        if not self._before < self.done < self.total:
            return ""
        by_rate = self._elapsed() * (self.total - self.done) / (self.done - self._before)
        if self._most_s < by_rate:
            return f"{_clock(self._most_s)} of the budget left"
        return f"{_clock(by_rate)} left"

    def _elapsed(self) -> float:
        return time.monotonic() - self.started


def _clock(seconds: float) -> str:
    """`8 s`, `2:05 min`, `1:02 h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}:{rest:02d} min" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d} h"
