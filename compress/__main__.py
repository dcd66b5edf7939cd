"""The `compress` command. Interrupts are taken over before anything heavy is imported."""

import os
import signal
import sys
from types import FrameType


def _interrupted(number: int, frame: "FrameType | None") -> None:
    """End at once: stage folders are safe against a kill at any moment, so there is nothing to unwind."""
    start = "\n" if os.isatty(2) else ""  # a progress line may stand there
    name = signal.Signals(number).name
    os.write(2, f"{start}compress: interrupted ({name}); the same command resumes where it stopped\n".encode())
    os._exit(130)


def share_the_cores() -> None:
    """Let OpenMP's idle threads spin briefly only: two processes on the same cores otherwise starve each other.

    Read by libgomp when torch is loaded, so set before that. A setting of the user's own stays.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")


def entry() -> None:
    """The console script: run this process's command line and exit with its code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupted)
    share_the_cores()
    from compress.cli.execute import execute

    sys.exit(execute(sys.argv[1:]))


if __name__ == "__main__":
    entry()
