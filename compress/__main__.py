"""The `compress` command. Interrupts are taken over before anything heavy is imported."""

import os
import signal
import sys

from edge.core import interrupt, streams
from edge.core.errors import MachineFault


def use_utf8() -> None:
    """Start this process anew in Python's UTF-8 mode where the locale has another encoding.

    Our files, and nearly all names of files, are UTF-8. Under the C locale Python does so by itself unless it is told
    not to.
    """
    if sys.getfilesystemencoding() != "utf-8" and not sys.flags.utf8_mode and sys.executable:
        os.environ["PYTHONUTF8"] = "1"  # for processes that this one starts
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def share_the_cores() -> None:
    """Let OpenMP's idle threads spin briefly only: two processes on the same cores otherwise starve each other.

    Read by libgomp when torch is loaded, so set before that. A setting of the user's own stays.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")


def entry() -> None:
    """The console script: run this process's command line and exit with its code."""
    use_utf8()
    try:
        streams.prepare()
        os.getcwd()
    except MachineFault as fault:
        print(f"compress: {fault}", file=sys.stderr)
        sys.exit(fault.exit_code)
    except FileNotFoundError:  # torch's own libraries end the process there
        print("compress: the working directory was deleted; change to one that is there", file=sys.stderr)
        sys.exit(MachineFault.exit_code)
    interrupt.watch((signal.SIGINT, signal.SIGTERM))
    share_the_cores()
    if "WORLD_SIZE" in os.environ:  # what the group's connections say when they close is said in one line elsewhere
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from compress.cli.execute import execute

    try:
        code = execute(sys.argv[1:])
    except interrupt.Interrupted as stop:
        interrupt.end(stop.number)
    except KeyboardInterrupt:  # a module of the user's took the signal back
        interrupt.end(signal.SIGINT)
    sys.exit(code)


if __name__ == "__main__":
    entry()
