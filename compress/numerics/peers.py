"""Whether the other processes of a group still live, and that only one of them says why the group ends.

The kernel tells at once when a process on this machine ends (pidfd, Linux 5.3), whatever this one is doing; that one
on another machine was lost shows in the next exchange with it.
"""

import contextlib
import os
import select
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SAID = "compress/said"
EXIT_CODE = 2
#: How long the end of a process may lag behind the end of its connections, in seconds.
SETTLE_S = 1.0
#: How long rank 0 is given to say what every rank has found, in seconds.
PATIENCE_S = 1.0
#: Whether an exchange failed because the other side is gone.
GONE = ("closed by peer", "reset by peer", "broken pipe", "socket closed", "remote process exited", "timed out")


class Peers:
    """The processes of a group, watched until `rest`; `store` is a connection of its own to the group's store.

    `homes` says where the process of each rank lives, as `home` found it there.
    """

    def __init__(self, rank: int, homes: "Sequence[tuple[str, int]]", store: Any) -> None:
        self.rank, self.store = rank, store
        self._ending = threading.RLock()  # taken by the thread that ends this process, never released
        self._first: bool | None = None
        self._handles = {}
        space, _ = homes[rank]
        for other, (where, pid) in enumerate(homes):
            if other != rank and where == space and (handle := _handle(pid)) is not None:
                self._handles[handle] = other
        self._resting, self._rest = os.pipe()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def gone(self, within_s: float = 0.0) -> list[int]:
        """Ranks on this machine whose processes have ended; waits that long for the first."""
        poll = select.poll()
        for handle in self._handles:
            poll.register(handle, select.POLLIN)
        return sorted(self._handles[handle] for handle, _ in poll.poll(within_s * 1000)) if self._handles else []

    def first(self) -> bool:
        """Whether this process is the first of the group that has something to say about its end."""
        if self._first is None:
            try:
                self._first = self.store.add(SAID, 1) == 1
            except RuntimeError:  # the store went with the process that was lost
                self._first = True
        return self._first

    def spoken(self, within_s: float = PATIENCE_S) -> bool:
        """Whether another process has said, or says within that time, why the group ends."""
        end = time.monotonic() + within_s
        with contextlib.suppress(RuntimeError):
            while not (found := self.store.check([SAID])) and time.monotonic() < end:
                time.sleep(0.02)
            return bool(found)
        return False

    def instead(self) -> "str | None":
        """What a process that a signal ends says: who was lost, "" where another has spoken, None for the usual line.

        torchrun ends the ranks of a machine by a signal as soon as one of them is gone. The process ends after this.
        """
        self._ending.acquire()
        gone = self.gone()
        if not self.first():
            return ""
        return lost(gone) if gone else None

    def rest(self) -> None:
        """Stop watching; if a loss is being reported at this moment, the process ends here."""
        if not self._thread.is_alive() and not self._handles:
            return
        self._ending.acquire()
        os.write(self._rest, b"-")
        self._thread.join()
        for handle in (*self._handles, self._resting, self._rest):
            os.close(handle)
        self._handles = {}

    def _watch(self) -> None:
        poll = select.poll()
        for handle in (*self._handles, self._resting):
            poll.register(handle, select.POLLIN)
        ended = [self._handles[handle] for handle, _ in poll.poll() if handle in self._handles]
        if not ended or not self._ending.acquire(blocking=False):
            return
        if self.first():
            os.write(2, f"compress: {lost(ended)}\n".encode())
        os._exit(EXIT_CODE)


def lost(ranks: "Sequence[int]", why: str = "its process ended") -> str:
    """The one line about ranks that were lost; `why` says what was seen."""
    who = f"rank {', '.join(map(str, sorted(ranks)))}" if ranks else "another rank"
    return f"{who} was lost ({why}); its own messages say more, the same command resumes"


def home() -> tuple[str, int]:
    """Which processes this one can see, "" where that cannot be told, and its number among them."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}", os.getpid()
    return "", os.getpid()


def _handle(pid: int) -> "int | None":
    """What becomes readable when that process ends; None where the system has no such thing."""
    with contextlib.suppress(AttributeError, OSError):
        return os.pidfd_open(pid)
    return None
