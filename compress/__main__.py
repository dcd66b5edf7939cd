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


def entry() -> None:
    """The console script: run this process's command line and exit with its code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupted)
    from compress.cli.execute import execute

    sys.exit(execute(sys.argv[1:]))


if __name__ == "__main__":
    entry()
