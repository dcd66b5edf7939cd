"""The process that samples: `python -m edge.evidence.sample --interval 0.05 --parent PID`. Numbers go to stdout.

After the first sample a line of JSON that names the channels; then nothing until stdin ends, whoever closes it, or the
parent is gone; then a line of JSON with the count and its own cost, and the samples: times int64 ns (n,), values
float64 (n, channels). So a parent that is killed takes its sampler along: its end of the pipe closes with it.
"""

import argparse
import json
import os
import select
import signal
import sys
import time
from array import array
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from edge.evidence.channels import Channels
from edge.evidence.tree import Tree


def main(arguments: "list[str] | None" = None) -> None:
    parser = argparse.ArgumentParser(prog="sample", description=__doc__)
    parser.add_argument("--interval", type=float, required=True, help="seconds from sample to sample")
    parser.add_argument("--parent", type=int, required=True, help="the process whose time is told apart")
    parser.add_argument("--sysroot", default="/", help="a recorded tree instead of this machine")
    parser.add_argument("--gpu", action=argparse.BooleanOptionalAction, default=True, help="ask NVML")
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends this process
    tree = Tree(given.sysroot)
    with ExitStack() as stack:
        channels = Channels(stack, tree, parent=given.parent, gpu=given.gpu)
        try:
            about = {"channels": channels.names, "ranges": channels.ranges, "unreadable": tree.unreadable}
            times, values, cost = _sample(channels, given.interval, begun=lambda: _line(about))
            _line({"n": len(times), **cost})
            sys.stdout.buffer.write(times.tobytes() + values.tobytes())
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nobody reads any more, the interpreter's last flush included


def _sample(
    channels: Channels, interval: float, begun: Callable[[], None]
) -> "tuple[array[int], array[float], dict[str, Any]]":
    """At once, which `begun` is told, then every `interval` seconds until stdin ends, and once more at the end.

    The parent's end shows in who is the parent now, too: a process that it forked may hold the pipe open.
    """
    times, values, parent = array("q"), array("d"), os.getppid()
    began, spent = time.monotonic(), time.process_time()
    due, ended = began, False
    while True:
        times.append(time.monotonic_ns())
        values.extend(channels.read().values())
        if len(times) == 1:
            begun()
        if ended or os.getppid() != parent:
            break
        now = time.monotonic()
        due = max(due + interval, now)  # late ones are not made up for
        ended = bool(select.select([0], [], [], due - now)[0])
    wall = time.monotonic() - began
    return times, values, {"wall_s": wall, "cpu_s": time.process_time() - spent, "interval_s": interval}


def _line(content: "dict[str, Any]") -> None:
    sys.stdout.buffer.write(json.dumps(content).encode() + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
