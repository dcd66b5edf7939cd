"""What every Linux kernel's files tell: clocks of cores, of a Jetson's GPU and of its memory (cpufreq, devfreq, BPMP's
debug files); temperatures by zone, where they start to throttle, and what the kernel throttles now; processor time by
kind, time limits that bit, memory.
"""

import re
from typing import Any

from edge.evidence.tree import AS_ROOT, OFF, Tree

CPU = "sys/devices/system/cpu"
BPMP = "sys/kernel/debug/bpmp/debug/clk/emc"
#: A Jetson's GPU among the devices of devfreq: Orin's by address, Thor's by graphics cluster.
GPU = re.compile(r"gpu-gpc-0|[0-9a-f]+\.(?:gpu|ga10b|gb10b|gv11b)|ga10b|gpu")
MEMORY = re.compile(r"bwmgr|emc")

Clocks = dict[str, dict[str, Any]]


def core_clocks(tree: Tree) -> Clocks:
    """{"cpu0": {mhz, min_mhz, max_mhz, governor}}: now, and its bounds; {} without cpufreq."""
    clocks: Clocks = {}
    for folder in tree.glob(f"{CPU}/cpu[0-9]*"):
        name = folder.rsplit("/", 1)[1]
        if not name[3:].isdigit() or tree.text(f"{folder}/online") == "0":
            continue
        governor = tree.text(f"{folder}/cpufreq/scaling_governor")
        clock = _clock(tree, f"{folder}/cpufreq/scaling_{{}}_freq", f"clock of {name}", 1e3)
        if clock is not None:
            clocks[name] = clock | {"governor": governor}
    if not clocks:
        tree.lacks("clocks of the cores", f"no cpufreq below /{CPU}", "nothing to do in a virtual machine")
    return clocks


def gpu_clock(tree: Tree) -> "dict[str, Any] | None":
    """A Jetson's GPU: {mhz, min_mhz, max_mhz, governor}."""
    return _device(tree, gpu_device(tree), "clock of the GPU")


def gpu_device(tree: Tree) -> "str | None":
    """Its folder of devfreq."""
    return _find(tree, GPU)


def memory_device(tree: Tree) -> "str | None":
    """The memory controller's folder of devfreq; not on every board."""
    return _find(tree, MEMORY)


def memory_clock(tree: Tree) -> "dict[str, Any] | None":
    """The memory's clock (EMC): {mhz, min_mhz, max_mhz, override?}; on Orin for root alone."""
    device = memory_device(tree)
    if device is not None:
        return _device(tree, device, "clock of the memory")
    values: dict[str, Any] = {}
    for key, name in _OF_BPMP.items():
        value = tree.number(f"{BPMP}/{name}", "clock of the memory", AS_ROOT)
        if value is None:
            return None  # said once
        values[key] = value / 1e6
    override = tree.number(f"{BPMP}/mrq_rate_locked")
    return values if override is None else values | {"override": bool(override)}


_OF_BPMP = {"mhz": "rate", "min_mhz": "min_rate", "max_mhz": "max_rate"}


def held(clock: "dict[str, Any] | None") -> "bool | None":
    """Whether a clock cannot move: its bounds are one, or it is overridden."""
    if clock is None or clock.get("max_mhz") is None:
        return None
    return bool(clock.get("override")) or clock["min_mhz"] == clock["max_mhz"]


def boost(tree: Tree) -> "bool | None":
    """Whether cores may go beyond their nominal clock."""
    if (allowed := tree.number(f"{CPU}/cpufreq/boost")) is not None:
        return bool(allowed)
    barred = tree.number(f"{CPU}/intel_pstate/no_turbo")
    return None if barred is None else not barred


def _find(tree: Tree, names: "re.Pattern[str]") -> "str | None":
    return next((path for path in tree.glob("sys/class/devfreq/*") if names.fullmatch(path.rsplit("/", 1)[1])), None)


def _device(tree: Tree, folder: "str | None", what: str) -> "dict[str, Any] | None":
    if folder is None:
        tree.lacks(what, "no such device below /sys/class/devfreq", "look whether its driver is loaded")
        return None
    clock = _clock(tree, folder + "/{}_freq", what, 1e6)
    return clock and clock | {"governor": tree.text(f"{folder}/governor")}


def _clock(tree: Tree, path: str, what: str, per_mhz: float) -> "dict[str, Any] | None":
    now = tree.number(path.format("cur"), what if tree.has(path.format("max")) else "")
    if now is None:
        return None
    bounds = {f"{name}_mhz": tree.number(path.format(name)) for name in ("min", "max")}
    return {"mhz": now / per_mhz, **{key: None if value is None else value / per_mhz for key, value in bounds.items()}}


# ---------------------------------------------------------------------------------------------------------------- heat


ZONES = "sys/class/thermal/thermal_zone*"
COOLERS = "sys/class/thermal/cooling_device*"
CHIPS = ("coretemp", "k10temp", "zenpower")
#: Cooling by making something slower. A fan's or a display's state says nothing of speed.
THROTTLES = re.compile(r"throttle|alert|cpufreq|devfreq|^Processor")
OFF_MC = -200_000  # a sensor of a part without power reads −256 °C


def zones(tree: Tree) -> "dict[str, str]":
    """{zone: its folder}; a name that comes twice gets a number."""
    folders: dict[str, str] = {}
    for folder in tree.glob(ZONES):
        kind = tree.text(f"{folder}/type", f"name of {folder.rsplit('/', 1)[1]}")
        if kind is not None:
            folders[_free(folders, kind.removesuffix("-thermal"))] = folder
    return folders


def sensors(tree: Tree) -> "dict[str, str]":
    """{sensor: its file} of the processor's own chips, on machines without thermal zones for them."""
    files: dict[str, str] = {}
    for folder in tree.glob("sys/class/hwmon/hwmon*"):
        if tree.text(f"{folder}/name") in CHIPS:
            for path in tree.glob(f"{folder}/temp*_input"):
                label = tree.text(path.replace("_input", "_label"))
                files[_free(files, label or "cpu")] = path
    return files


def temperatures(tree: Tree) -> dict[str, float]:
    """°C by zone and sensor."""
    files = {name: f"{folder}/temp" for name, folder in zones(tree).items()}
    for name, path in sensors(tree).items():
        files[_free(files, name)] = path
    read = {name: tree.number(path, f"temperature of {name}", OFF) for name, path in files.items()}
    if not files:
        tree.lacks("temperatures", "no thermal zone here", "nothing to do in a virtual machine")
    return {name: value / 1000 for name, value in read.items() if value is not None and value > OFF_MC}


def limits(tree: Tree) -> dict[str, float]:
    """°C from which on each zone throttles: its lowest passive trip point, else the hot, else the critical one."""
    degrees = {}
    for name, folder in zones(tree).items():
        trips: dict[str, list[int]] = {}
        for path in tree.glob(f"{folder}/trip_point_*_type"):
            kind, value = tree.text(path), tree.number(path.replace("_type", "_temp"))
            if kind is not None and value is not None and value > 0:
                trips.setdefault(kind, []).append(value)
        lowest = next((min(trips[kind]) for kind in ("passive", "hot", "critical") if kind in trips), None)
        if lowest is not None:
            degrees[name] = lowest / 1000
    return degrees


def coolers(tree: Tree) -> dict[str, str]:
    """{cooling device that throttles: its folder}."""
    folders: dict[str, str] = {}
    for folder in tree.glob(COOLERS):
        kind = tree.text(f"{folder}/type")
        if kind is not None and THROTTLES.search(kind):
            folders[_free(folders, kind)] = folder
    return folders


def throttles(tree: Tree) -> dict[str, int]:
    """{cooling device: its state}, 0 where it does not throttle."""
    read = {name: tree.number(f"{folder}/cur_state", name) for name, folder in coolers(tree).items()}
    return {name: state for name, state in read.items() if state is not None}


def _free(taken: "dict[str, str]", name: str) -> str:
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free


# ----------------------------------------------------------------------------------------------------- time and memory


TICKS = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
IDLE = ("idle", "iowait")


def ticks(text: "str | None") -> dict[str, int]:
    """The first line of /proc/stat, in ticks over all cores since the machine started; {} where it is not one.

    `busy` is all but idle, waiting and stolen time; `steal` is time in which the host ran something else.
    """
    fields = (text or "").partition("\n")[0].split()
    if len(fields) < 1 + len(TICKS) or fields[0] != "cpu" or not all(map(_whole, fields[1:9])):
        return {}
    counted = dict(zip(TICKS, map(int, fields[1:9]), strict=True))
    busy = sum(value for name, value in counted.items() if name not in (*IDLE, "steal"))
    return {"busy": busy, "steal": counted["steal"], "total": sum(counted.values())}


def process_ticks(text: "str | None") -> "int | None":
    """User and system time of /proc/PID/stat, all threads, in ticks. Its second field may hold anything, blanks too."""
    fields = (text or "").rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12]) if len(fields) > 12 and all(map(_whole, fields[11:13])) else None


def limit_file(tree: Tree) -> "str | None":
    """Where this process's control group counts the periods in which its time limit bit (version 2, else 1)."""
    listed = (tree.text("proc/self/cgroup") or "").splitlines()
    for line in listed:
        _, names, group = [*line.split(":", 2), "", ""][:3]
        base = {"": "sys/fs/cgroup", "cpu": "sys/fs/cgroup/cpu", "cpu,cpuacct": "sys/fs/cgroup/cpu,cpuacct"}.get(names)
        path = f"{base}/{group.strip('/')}/cpu.stat".replace("//", "/") if base and ".." not in group else ""
        if path and "nr_throttled" in (tree.text(path) or ""):
            return path
    return None


def limited(text: "str | None") -> "int | None":
    """`nr_throttled` of a cpu.stat: periods in which the time limit stopped the group."""
    for line in (text or "").splitlines():
        name, _, value = line.partition(" ")
        if name == "nr_throttled" and _whole(value):
            return int(value)
    return None


def memory_sizes(tree: Tree) -> "dict[str, int] | None":
    """{total_bytes, available_bytes, swap_total_bytes, swap_used_bytes} of /proc/meminfo."""
    sizes = {}
    for line in (tree.text("proc/meminfo") or "").splitlines():
        name, _, rest = line.partition(":")
        fields = rest.split()
        if fields and _whole(fields[0]):
            sizes[name] = int(fields[0]) * 1024
    if "MemTotal" not in sizes:
        tree.lacks("memory", "proc/meminfo has no MemTotal", "look whether /proc is mounted")
        return None
    swap = sizes.get("SwapTotal", 0)
    return {
        "total_bytes": sizes["MemTotal"],
        "available_bytes": sizes.get("MemAvailable", 0),
        "swap_total_bytes": swap,
        "swap_used_bytes": swap - sizes.get("SwapFree", swap),
    }


def _whole(text: str) -> bool:
    """Whether it is a number of digits alone, of a size that a machine has."""
    return text.isascii() and text.isdigit() and len(text) < 20
