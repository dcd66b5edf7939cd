"""The machine that measured: processor, cores, clock, load, memory, versions; on a board the release of Jetson Linux
and the JetPack that ships it. Linux; what is unreadable is null. Standard library only.
"""

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
    # version 2: the process's own group, and all up to the root
    named = [
        line.split("::", 1)[1] for line in (_text(sysroot / "proc/self/cgroup") or "").splitlines() if "::" in line
    ]
    own = Path(*[part for part in Path(named[0]).parts if part not in ("/", "..")]) if named else Path()
    limits = [_limit(_text(groups / folder / "cpu.max")) for folder in (own, *own.parents)]
    old = [_text(groups / "cpu" / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
    limits.append(_limit(" ".join(map(str, old))))
    return min((limit for limit in limits if limit is not None), default=None)


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


# -------------------------------------------------------------------------------------------------------- Jetson Linux


#: L4T release → JetPack, as NVIDIA's archive lists them; a later patch of one minor release belongs to the last listed.
JETPACK = {
    "35.1": "5.0.2",
    "35.2": "5.1",
    "35.3": "5.1.1",
    "35.4": "5.1.2",
    "35.5": "5.1.3",
    "35.6": "5.1.4",
    "36.2": "6.0",
    "36.3": "6.0",
    "36.4": "6.1",
    "36.4.3": "6.2",
    "36.4.4": "6.2.1",
    "36.4.7": "6.2.1",
    "36.5": "6.2.2",
    "38.2": "7.0",
    "38.4": "7.1",
    "39.2": "7.2",
}
#: Of a release that is not listed, the major version still says JetPack's.
MAJORS = {35: "5", 36: "6", 38: "7", 39: "7"}
RELEASE = re.compile(r"R(\d+) \(release\), REVISION: (\d+(?:\.\d+)*)")
#: Debian packages whose versions say what JetPack installed.
PACKAGES = ("nvidia-jetpack", "nvidia-l4t-core", "python3-libnvinfer", "libnvinfer10", "libnvinfer8")


def read_release(sysroot: Path = ROOT) -> "dict[str, Any] | None":
    """{"model", "l4t", "jetpack", "packages"} of the tree below `sysroot`; None where it is no Jetson.

    Sources: etc/nv_tegra_release, var/lib/dpkg/status, proc/device-tree/model. What none of them says is null.
    """
    packages = {}
    for entry in (_text(sysroot / "var/lib/dpkg/status") or "").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in entry.splitlines() if ": " in line and line[0] != " ")
        if fields.get("Package") in PACKAGES and fields.get("Status", "").endswith(" installed"):
            packages[fields["Package"]] = fields.get("Version", "")
    model = _text(sysroot / "proc/device-tree/model")
    match = RELEASE.search(_text(sysroot / "etc/nv_tegra_release") or "")
    release = f"{match[1]}.{match[2]}" if match else _upstream(packages.get("nvidia-l4t-core"))
    if release is None and "Jetson" not in (model or ""):
        return None
    shipped = _upstream(packages.get("nvidia-jetpack"))
    return {"model": model, "l4t": release, "jetpack": shipped or jetpack(release), "packages": packages}


def jetpack(release: "str | None") -> "str | None":
    """`36.4.3` → `6.2`; of a minor release that is not listed the major version alone, None of an unknown major."""
    if release is None:
        return None
    want = _numbers(release)
    listed = [known for known in JETPACK if _numbers(known)[:2] == want[:2] and _numbers(known) <= want]
    return JETPACK[max(listed, key=_numbers)] if listed else MAJORS.get(want[0])


def _upstream(version: "str | None") -> "str | None":
    """The numbers that a Debian version begins with: `6.2+b77` → 6.2, `36.4.3-2025…` → 36.4.3."""
    match = re.match(r"\d+(\.\d+)*", version or "")
    return match[0] if match else None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
