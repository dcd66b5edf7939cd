"""Ends of a group, as the command line meets them: end.py HOW FOLDER. Every rank leaves its process id in FOLDER."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import torch

from compress.numerics import ranks
from edge.core.errors import CheckFailed, CompressError


def main(how: str, folder: Path) -> None:
    with ranks.started():
        ranks.gather(None)
        (folder / f"rank-{ranks.rank()}").write_text(str(os.getpid()))
        print("result")
        print("progress", file=sys.stderr)
        if how == "one fault" and ranks.rank() == 1:
            raise CheckFailed("what rank 1 alone found")
        if how == "one fault on rank 0" and ranks.rank() == 0:
            raise CheckFailed("what rank 0 alone found")
        if how == "same fault":
            raise CheckFailed("what all ranks found")
        if how == "bug" and ranks.rank() == 1:
            raise ZeroDivisionError("a bug on rank 1")
        if how == "compute" and ranks.rank() != 1:
            time.sleep(600)
        if how == "backward":
            descend()
        while how != "peace":
            ranks.largest(0.0)


def descend() -> None:
    """A training step without end, of which most exchanges are in the backward pass."""
    from compress import networks
    from compress.networks.distributed import sharded

    network = sharded(networks.build_network("resnet8", channels=1, classes=10))
    while True:
        network(torch.rand(8, 1, 8, 8)).sum().backward()


def answer() -> None:
    """End by a signal as the command line does, whatever the main thread is doing."""
    signal.sigwait({signal.SIGTERM})
    line = ranks.instead()
    if line != "":
        os.write(2, f"compress: {line or 'interrupted'}\n".encode())
    os._exit(130)


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=answer, daemon=True).start()
    try:
        main(sys.argv[1], Path(sys.argv[2]))
    except CompressError as fault:
        print(f"compress: {fault}", file=sys.stderr)
        sys.exit(fault.exit_code)
