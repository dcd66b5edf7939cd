"""How far a long loop is: one rewritten line on a terminal, a line now and then elsewhere. Always on stderr."""

import sys
import time
from types import TracebackType

REDRAW_S = 0.1
LINE_EVERY_S = 10.0


def say(line: str) -> None:
    """One line for the person watching."""
    print(line, file=sys.stderr, flush=True)


class Progress:
    """`with Progress("square", 1000) as bar: bar.step(k, note="…")`, counted in steps of the caller's choice."""

    def __init__(self, label: str, total: int) -> None:
        self.label, self.total, self.done, self.note = label, total, 0, ""
        self.terminal = sys.stderr.isatty()
        self.began = self.shown = time.monotonic()
        self.offset = 0  # steps that were done before this process began

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: "type[BaseException] | None", fault: object, trace: "TracebackType | None") -> None:
        if kind is None:
            self._show(self._line(f"{time.monotonic() - self.began:.0f} s"), last=True)
        elif self.terminal:
            sys.stderr.write("\n")

    def step(self, count: int = 1, note: str = "") -> None:
        """`count` further steps are done; `note` says what was last seen."""
        self.done, self.note = self.done + count, note or self.note
        now = time.monotonic()
        if now - self.shown >= (REDRAW_S if self.terminal else LINE_EVERY_S):
            self.shown = now
            left = (now - self.began) * (self.total - self.done) / self.done if self.done else 0.0
            self._show(self._line(f"{left:.0f} s left"))

    def _line(self, when: str) -> str:
        return f"{self.label}  {self.done}/{self.total}  {when}" + (f"  {self.note}" if self.note else "")

    def _show(self, line: str, last: bool = False) -> None:
        if self.terminal:
            sys.stderr.write(f"\r\x1b[2K{line}" + ("\n" if last else ""))
            sys.stderr.flush()
        else:
            say(line)
