"""The machine's state at one moment: Jetson, desktop GPU or processor, everything that it tells without root."""

import time
from pathlib import Path
from typing import Any

from edge.core import machine
from edge.evidence import jetson, kernel, nvml, power
from edge.evidence.tree import LIVE, Tree

OF_OTHERS = (
    *("proc/cpuinfo", "proc/loadavg", "proc/meminfo", "proc/self/status", "proc/self/cgroup"),
    *("proc/sys/kernel/osrelease", jetson.MODEL, jetson.RELEASE),
)
JETSON, GPU, CPU = "jetson", "gpu", "cpu"


def snapshot(
    sysroot: "Path | str" = LIVE,
    *,
    gpu: bool = True,
    library: str = nvml.LIBRARY,
    own: "tuple[int, ...]" = (),
    record: "Path | None" = None,
) -> dict[str, Any]:
    """What `machine.state` gives, and the evidence; JSON types, null for what is not there or could not be read.

    kind            "jetson", "gpu" or "cpu"
    monotonic_ns    when, on the clock that samples have
    board           {model, soc, l4t, jetpack, packages, cuda}, of a Jetson
    power_mode      {id, name} of nvpmodel
    clocks          {"cpu0", "gpu", "emc", "gpu_memory": {mhz, min_mhz, max_mhz, governor}}
    jetson_clocks   whether every core's and the GPU's clock is held at one value
    boost, virtual  whether cores may go beyond their nominal clock; whether a hypervisor runs below
    temperatures_c, limits_c       by zone: now, and from where on it throttles
    throttled, over_current        {cooling device: state}, {counter: events}; `limited` periods of a spent time limit
    power_mw, energy_mj            by rail now, by counter since some moment
    fans, memory, gpu, ticks       as `power`, `load` and `nvml` describe them
    unreadable      [{what, why, how}]

    `gpu`: whether NVML is asked at all. `own`: further processes that are ours. Below a `sysroot` other than `/` a
    recorded tree is read by the same code; `record` is a folder in which to make one. Never an exception for what a
    machine tells or does not tell.
    """
    tree = Tree(sysroot, record)
    on_jetson = jetson.is_jetson(tree)
    state: dict[str, Any] = {
        **machine.state(tree.root),
        "kind": JETSON if on_jetson else CPU,
        "monotonic_ns": time.monotonic_ns(),
        "board": jetson.board(tree) if on_jetson else None,
        "power_mode": jetson.power_mode(tree) if on_jetson else None,
        "clocks": kernel.core_clocks(tree),
        "jetson_clocks": None,
        "boost": kernel.boost(tree),
        "virtual": "hypervisor" in (tree.text("proc/cpuinfo") or ""),
        "temperatures_c": kernel.temperatures(tree),
        "limits_c": kernel.limits(tree),
        "throttled": kernel.throttles(tree),
        "over_current": _numbers(tree, power.over_current(tree)),
        "limited": _limited(tree),
        "power_mw": power.milliwatts(tree),
        "energy_mj": power.counted_energy(tree),
        "fans": power.fans(tree),
        "memory": kernel.memory_sizes(tree),
        "gpu": _gpu(tree, library, own) if gpu else None,
        "ticks": kernel.ticks(tree.text("proc/stat")),
    }
    if on_jetson:
        _complete_jetson(tree, state)
    elif state["gpu"] is not None:
        state["kind"] = GPU
    if state["gpu"] is not None:
        _merge_gpu(state)
    if not state["power_mw"] and not state["energy_mj"]:
        tree.lacks("power", "no power monitor or energy counter that can be read", "measure at the plug")
    if record is not None:
        _rest(tree)
    return state | {"unreadable": tree.unreadable}


def _rest(tree: Tree) -> None:
    """Into the recording, too, what other modules read: of dpkg's database the entries of NVIDIA's packages alone."""
    for path in OF_OTHERS:
        tree.text(path)
    entries = (Tree(tree.root).text("var/lib/dpkg/status") or "").split("\n\n")
    ours = [entry for entry in entries if entry.partition("\n")[0].removeprefix("Package: ") in machine.PACKAGES]
    if ours:
        tree.keep("var/lib/dpkg/status", "\n\n".join(ours) + "\n")


def _numbers(tree: Tree, files: "dict[str, str]") -> dict[str, int]:
    read = {name: tree.number(path, name) for name, path in files.items()}
    return {name: value for name, value in read.items() if value is not None}


def _limited(tree: Tree) -> "int | None":
    path = kernel.limit_file(tree)
    return None if path is None else kernel.limited(tree.text(path))


def _complete_jetson(tree: Tree, state: dict[str, Any]) -> None:
    """Clocks of GPU and memory, and from the board's tools what the kernel's files did not give."""
    of_devices = {"gpu": kernel.gpu_clock(tree), "emc": kernel.memory_clock(tree)}
    shown, line = jetson.shown_clocks(tree), jetson.tegrastats(tree)
    known: kernel.Clocks = {**state["clocks"], **{name: clock for name, clock in of_devices.items() if clock}}
    known = {**shown, **known}
    for name in ("gpu", "emc"):
        mhz = line.get(name, {}).get("mhz")
        if name not in known and mhz is not None:
            known[name] = {"mhz": mhz}
    state["clocks"] = known
    state["jetson_clocks"] = jetson.all_held(known)
    for key in ("temperatures_c", "power_mw"):
        state[key] = {**line.get(key, {}), **state[key]} if not state[key] else state[key]
    path = jetson.gpu_load(tree)
    thousandths = None if path is None else tree.number(path, "utilisation of the GPU")
    busy = line.get("gpu", {}).get("busy") if thousandths is None else thousandths / 1000
    gpu = state["gpu"] or {}
    state["gpu"] = {**gpu, "busy": gpu.get("busy") if busy is None else busy}
    if state["gpu"]["busy"] is None:
        how = "read it live: NVML tells it" if not tree.live else "sudo tegrastats"
        tree.lacks("utilisation of the GPU", "neither devfreq, tegrastats nor NVML tells it", how)


def _gpu(tree: Tree, library: str, own: "tuple[int, ...]") -> "dict[str, Any] | None":
    if not tree.live and library == nvml.LIBRARY:
        return None  # a recording's GPU is not the one that this machine may have
    try:
        with nvml.opened_nvml(library) as (device, loaded):
            return nvml.describe_gpu(tree, device, loaded, own)
    except nvml.NvmlError as fault:
        tree.lacks("GPU", str(fault), "nothing to do without an NVIDIA GPU; with one, install its driver")
        return None


def _merge_gpu(state: dict[str, Any]) -> None:
    """What the GPU's library tells stands with what it is: clocks with clocks, power with power."""
    gpu = state["gpu"]
    for name, clock in gpu.pop("clocks", {}).items():
        if clock["mhz"] is not None:
            state["clocks"].setdefault(name, clock)
    for key, name, value in (
        ("temperatures_c", "gpu", gpu.pop("temperature_c", None)),
        ("limits_c", "gpu", gpu.pop("slowdown_c", None)),
        ("power_mw", "GPU", gpu.pop("power_mw", None)),
        ("energy_mj", "GPU", gpu.pop("energy_mj", None)),
    ):
        if value is not None:
            state[key].setdefault(name, value)
