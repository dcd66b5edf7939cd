"""The machine that measured: processor, cores, clock, load, memory, versions. Linux; what is unreadable is null."""

import os
import platform
import re
from collections.abc import Iterator
from importlib import metadata
from math import ceil
from pathlib import Path
from typing import Any

ROOT = Path("/")
#: What decides which integer and float kernels a runtime picks.
ISA = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "asimddp", "i8mm")
RUNTIMES = ("numpy", "onnxruntime")


def state(sysroot: Path = ROOT) -> dict[str, Any]:
    """What the tree below `sysroot` (proc/, sys/) says now; JSON types, null for what cannot be read.

    MHz is core 0's clock, `load` the averages over 1, 5 and 15 minutes, `quota` the control group's limit.
    """
    cpuinfo = _text(sysroot / "proc/cpuinfo")
    flags = _first(cpuinfo, "flags") or _first(cpuinfo, "Features")
    khz = _number(_text(sysroot / "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq"))
    text = _text(sysroot / "proc/loadavg")
    averages = [number for part in (text or "").split()[:3] if (number := _number(part)) is not None]
    return {
        "cpu": _first(cpuinfo, "model name") or _text(sysroot / "proc/device-tree/model"),
        "isa": None if flags is None else [name for name in ISA if name in flags.split()],
        "cores": {
            "visible": sum(1 for _ in _fields(cpuinfo, "processor")) or None,
            "allowed": _affinity(sysroot),
            "quota": _quota(sysroot),
        },
        "governor": _text(sysroot / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "mhz": khz / 1000 if khz is not None else _number(_first(cpuinfo, "cpu MHz")),
        "load": averages if len(averages) == 3 else None,
        "memory_available_bytes": memory_available(sysroot),
        "kernel": _text(sysroot / "proc/sys/kernel/osrelease"),
        "python": platform.python_version(),
        "runtimes": {name: _version(name) for name in RUNTIMES},
    }


def usable_cores(sysroot: Path = ROOT) -> int:
    """How many threads can run at once: cores allowed by affinity, or fewer where a control group limits their time."""
    allowed = _affinity(sysroot) or os.cpu_count() or 1
    quota = _quota(sysroot)
    return allowed if quota is None else max(1, min(allowed, ceil(quota)))


def memory_available(sysroot: Path = ROOT) -> "int | None":
    """Bytes that a program could still have without swapping."""
    kilobytes = _number((_first(_text(sysroot / "proc/meminfo"), "MemAvailable") or "").partition(" ")[0])
    return None if kilobytes is None else int(kilobytes) * 1024


def _text(path: Path) -> "str | None":
    try:
        return path.read_text(errors="replace").strip("\n\0 ") or None
    except OSError:
        return None


def _fields(text: "str | None", name: str) -> Iterator[str]:
    """Values of the `name : value` lines."""
    for line in (text or "").splitlines():
        key, colon, value = line.partition(":")
        if colon and key.strip() == name:
            yield value.strip()


def _first(text: "str | None", name: str) -> "str | None":
    return next(_fields(text, name), None)


def _affinity(sysroot: Path) -> "int | None":
    """Cores in a list such as `0-3,8`."""
    listed = _first(_text(sysroot / "proc/self/status"), "Cpus_allowed_list")
    if not listed or not re.fullmatch(r"[0-9]{1,6}(-[0-9]{1,6})?(,[0-9]{1,6}(-[0-9]{1,6})?)*", listed):
        return None
    ranges = [part.split("-") for part in listed.split(",")]
    return sum(int(part[-1]) - int(part[0]) + 1 for part in ranges)


def _quota(sysroot: Path) -> "float | None":
    """The smallest limit of processor time, in cores, of this process's control group and those above it."""
    groups = sysroot / "sys/fs/cgroup"
    limits = [_limit(_text(folder / "cpu.max")) for folder in _ancestors(sysroot, groups)]
    old = [_text(groups / "cpu" / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
    limits.append(_limit(" ".join(map(str, old))))
    return min((limit for limit in limits if limit is not None), default=None)


def _ancestors(sysroot: Path, groups: Path) -> Iterator[Path]:
    """The folders of this process's control group (version 2), from its own up to the root."""
    named = [
        line.split("::", 1)[1] for line in (_text(sysroot / "proc/self/cgroup") or "").splitlines() if "::" in line
    ]
    own = Path(*[part for part in Path(named[0]).parts if part not in ("/", "..")]) if named else Path()
    yield from (groups / folder for folder in (own, *own.parents))


def _limit(text: "str | None") -> "float | None":
    """`quota period` in microseconds as cores; `max` and −1 are no limit."""
    quota, _, period = (text or "").partition(" ")
    limit, every = _number(quota), _number(period)
    return limit / every if limit is not None and every else None


def _number(text: "str | None") -> "float | None":
    """What a text says that is one number without a sign, of a size that a machine has; else None."""
    return float(text) if text and re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,9})?", text) else None


def _version(name: str) -> "str | None":
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
