"""What is sampled: readers of one number each, opened once and cheap to ask ten times a second and more.

Names are UNIT.WHAT: mhz.cpu0, celsius.tj, mw.VDD_IN, mj.package-0, state.COOLING-DEVICE, events.oc3, share.gpu,
bits.gpu (NVML's reasons), and seconds of processor time: s.busy, s.steal, s.total, s.own (the process that measures).

The process that samples is `python -m edge.evidence.channels --interval 0.05 --parent PID`. Numbers go to stdout: after
the first sample a line of JSON that names the channels; then nothing until stdin ends, whoever closes it, or the parent
is gone; then a line of JSON with the count and its own cost, and the samples: times int64 ns (n,), values float64 (n,
channels). So a parent that is killed takes its sampler along: its end of the pipe closes with it.
"""

import argparse
import json
import math
import os
import select
import signal
import sys
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

from edge.evidence import jetson, kernel, nvml, power
from edge.evidence.tree import Tree

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
LONGEST = 4096  # bytes of the longest file: the first line of /proc/stat, one of /proc/PID/stat


class SampledFile:
    """A file of sysfs or procfs, read again at each call."""

    def __init__(self, stack: ExitStack, tree: Tree, path: str) -> None:
        self._descriptor = os.open(tree.root / path, os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, self._descriptor)

    def text(self) -> str:
        return os.pread(self._descriptor, LONGEST, 0).decode(errors="replace")

    def number(self) -> float:
        """NaN where it holds none, or what it belongs to is switched off."""
        try:
            return float(self.text())
        except (OSError, ValueError):
            return math.nan


Reader = Callable[[], dict[str, float]]


class Channels:
    """Everything of a tree that can be sampled; `read()` gives the value of each of `names` now."""

    def __init__(self, stack: ExitStack, tree: Tree, *, parent: "int | None" = None, gpu: bool = True) -> None:
        self._stack, self._tree = stack, tree
        self._readers: list[Reader] = []
        self.ranges: dict[str, float] = {}  # mJ at which a counter starts again from 0
        for name, path, unit in self._files():
            self._add(name, path, unit)
        for name, rail in power.rails(tree).items():
            self._rail(name, rail)
        self._processor(parent)
        if gpu and tree.live:
            self._gpu()
        self.names = list(self.read())

    def read(self) -> dict[str, float]:
        return {name: value for reader in self._readers for name, value in reader().items()}

    def _files(self) -> Iterator[tuple[str, str, float]]:
        """Name, file, and what one unit of the file is in units of the channel."""
        tree = self._tree
        for folder in tree.glob(f"{kernel.CPU}/cpu[0-9]*/cpufreq"):
            yield f"mhz.{folder.split('/')[-2]}", f"{folder}/scaling_cur_freq", 1e-3
        for name, device in (("gpu", kernel.gpu_device(tree)), ("emc", kernel.memory_device(tree))):
            if device is not None:
                yield f"mhz.{name}", f"{device}/cur_freq", 1e-6
        if kernel.memory_device(tree) is None and jetson.is_jetson(tree):
            yield "mhz.emc", f"{kernel.BPMP}/rate", 1e-6
        for name, folder in kernel.zones(tree).items():
            yield f"celsius.{name}", f"{folder}/temp", 1e-3
        for name, path in kernel.sensors(tree).items():
            yield f"celsius.{name}", path, 1e-3
        for name, folder in kernel.coolers(tree).items():
            yield f"state.{name}", f"{folder}/cur_state", 1.0
        for name, path in power.over_current(tree).items():
            yield f"events.{name}", path, 1.0
        for name, folder in power.counters(tree).items():
            yield f"mj.{name}", f"{folder}/energy_uj", 1e-3
            span = tree.number(f"{folder}/max_energy_range_uj")
            if span is not None:
                self.ranges[f"mj.{name}"] = span / 1000
        if (load_file := jetson.gpu_load(tree)) is not None:
            yield "share.gpu", load_file, 1e-3

    def _open(self, path: str) -> "SampledFile | None":
        """None, and a row in the tree's list, for what cannot be opened."""
        try:
            return SampledFile(self._stack, self._tree, path)
        except OSError:
            self._tree.text(path, path)
            return None

    def _add(self, name: str, path: str, unit: float) -> None:
        file = self._open(path)
        if file is not None and name.startswith("celsius."):
            self._readers.append(lambda: {name: _heat(file.number()) * unit})
        elif file is not None:
            self._readers.append(lambda: {name: file.number() * unit})

    def _rail(self, name: str, rail: power.Rail) -> None:
        if rail.microwatts is not None:
            self._add(f"mw.{name}", rail.microwatts, 1e-3)
            return
        volts, amperes = self._open(rail.millivolts), self._open(rail.milliamperes)
        if volts is not None and amperes is not None:
            self._readers.append(lambda: {f"mw.{name}": volts.number() * amperes.number() / 1000})

    def _processor(self, parent: "int | None") -> None:
        stat, own = (
            self._open("proc/stat"),
            self._open(f"proc/{parent}/stat") if parent is not None and self._tree.live else None,
        )
        path = kernel.limit_file(self._tree)
        limit = None if path is None else self._open(path)

        def read() -> dict[str, float]:
            ticks = kernel.ticks(_text(stat))
            seconds = {f"s.{name}": ticks.get(name, math.nan) * TICK_S for name in ("busy", "steal", "total")}
            if own is not None:
                mine = kernel.process_ticks(_text(own))
                seconds["s.own"] = math.nan if mine is None else mine * TICK_S
            if limit is not None:
                periods = kernel.limited(_text(limit))
                seconds["events.limited"] = math.nan if periods is None else float(periods)
            return seconds

        if stat is not None:
            self._readers.append(read)

    def _gpu(self) -> None:
        try:
            device, _ = self._stack.enter_context(nvml.opened_nvml())
        except nvml.NvmlError:
            return  # the snapshot says so
        known = {name for reader in self._readers for name in reader()}
        asked: dict[str, Callable[[], float]] = {
            "mhz.gpu": device.clock,
            "mhz.gpu_memory": lambda: device.clock(nvml.MEMORY),
            "celsius.gpu": device.temperature,
            "mw.GPU": device.power,
            "mj.GPU": device.energy,
            "share.gpu": lambda: device.busy() / 100,
            "bits.gpu": device.reasons,
        }
        for name, read in asked.items():
            if name not in known and not math.isnan(_asked(read)):
                self._readers.append(lambda name=name, read=read: {name: _asked(read)})  # type: ignore[misc]


def _heat(value: float) -> float:
    return value if value > kernel.OFF_MC else math.nan


def _text(file: "SampledFile | None") -> str:
    try:
        return "" if file is None else file.text()
    except OSError:  # the process is gone
        return ""


def _asked(read: Callable[[], Any]) -> float:
    try:
        return float(read())
    except (nvml.NvmlError, AttributeError):
        return math.nan


def record_samples(arguments: "list[str] | None" = None) -> None:
    parser = argparse.ArgumentParser(prog="sample", description=__doc__)
    parser.add_argument("--interval", type=float, required=True, help="seconds from sample to sample")
    parser.add_argument("--parent", type=int, required=True, help="the process whose time is told apart")
    parser.add_argument("--sysroot", default="/", help="a recorded tree instead of this machine")
    parser.add_argument("--gpu", action=argparse.BooleanOptionalAction, default=True, help="ask NVML")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends this process
    tree = Tree(options.sysroot)
    with ExitStack() as stack:
        channels = Channels(stack, tree, parent=options.parent, gpu=options.gpu)
        try:
            about = {"channels": channels.names, "ranges": channels.ranges, "unreadable": tree.unreadable}
            times, values, cost = _sample(channels, options.interval, begun=lambda: _line(about))
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
    record_samples()
