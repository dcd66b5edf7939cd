"""Look at a machine: this one, or the recorded tree of another."""

import json
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge.core import l4t, machine
from edge.core.errors import CompressError
from edge.doctor import packages
from edge.doctor.found import Found, Gpu

ROOT = Path("/")
TOOLS = ("g++", "ssh", "nvidia-smi", "trtexec")
DRIVER = re.compile(r"(?:Kernel Module|Kernel Module for \S+) +(\d+(?:\.\d+)+)")
NVIDIA_SMI_S = 5


def examine(sysroot: Path = ROOT) -> Found:
    """What is installed and what there is to run on. `sysroot` other than / : a tree copied from another machine.

    Read there: proc/, sys/, etc/, var/lib/dpkg/status, usr/lib/python3*/dist-packages. Nothing of it is executed.
    """
    if not sysroot.is_dir():
        raise CompressError(f"{sysroot}: no such folder; give the root of a recorded tree, with etc/ and proc/ in it")
    recorded = sysroot.resolve() != ROOT
    jetson = l4t.read(sysroot)
    if recorded:
        distributions, modules = packages.recorded(sysroot)
        driver: Mapping[str, Any] = {"fault": None}
    else:
        distributions, modules, driver = packages.here()
    return Found(
        python=_python(sysroot) if recorded else _this_python(),
        host=_host(sysroot, recorded),
        distributions=distributions,
        modules=modules,
        gpu=Gpu(
            driver=_driver(sysroot, recorded),
            cuda=driver.get("cuda"),
            devices=tuple(driver.get("devices", ())),
            fault=driver.get("fault"),
            runtime=_toolkit(sysroot) or next(filter(None, map(distributions.get, packages.CUDA_RUNTIMES)), None),
        ),
        jetson=jetson,
        tools=dict.fromkeys(TOOLS) if recorded else {name: shutil.which(name) for name in TOOLS},
        recorded=recorded,
    )


def _this_python() -> dict[str, Any]:
    """`pip`: what reaches this very Python, by its short name where that is the one found first."""
    environment = sys.prefix if sys.prefix != sys.base_prefix else None
    own = shutil.which("pip") == str(Path(sys.executable).with_name("pip"))
    pip = "pip" if own else f"{shlex.quote(sys.executable)} -m pip"
    return {"version": platform.python_version(), "executable": sys.executable, "environment": environment, "pip": pip}


def _python(sysroot: Path) -> dict[str, Any]:
    """The python3 of a recorded tree, by its library folder."""
    folders = [folder for place in ("usr/lib", "usr/local/lib") for folder in sysroot.glob(f"{place}/python3.*")]
    found = [folder.name.removeprefix("python") for folder in folders]
    newest = max(found, key=lambda name: [int(part) for part in name.split(".") if part.isdigit()], default=None)
    return {"version": newest, "executable": None, "environment": None, "pip": "python3 -m pip"}


def _host(sysroot: Path, recorded: bool) -> dict[str, Any]:
    state = machine.state(sysroot)
    return {
        "system": f"Linux {state['kernel'] or ''}".rstrip(),
        "arch": _arch(sysroot) if recorded else platform.machine(),
        "cpu": state["cpu"],
        "isa": state["isa"],
        "cores": state["cores"],
        "memory_bytes": _memory(sysroot),
        "memory_available_bytes": state["memory_available_bytes"],
        "disk_free_bytes": None if recorded else shutil.disk_usage(Path.cwd()).free,
    }


def _arch(sysroot: Path) -> "str | None":
    """Of a recorded tree: ARM names its features, x86 its flags."""
    text = _text(sysroot / "proc/cpuinfo")
    if re.search(r"^Features\s*:", text, re.MULTILINE) or (sysroot / "usr/lib/aarch64-linux-gnu").is_dir():
        return "aarch64"
    return "x86_64" if re.search(r"^flags\s*:", text, re.MULTILINE) else None


def _memory(sysroot: Path) -> "int | None":
    found = re.search(r"^MemTotal:\s+(\d+) kB", _text(sysroot / "proc/meminfo"), re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _driver(sysroot: Path, recorded: bool) -> "str | None":
    """The driver's version: the kernel module's own words, else nvidia-smi's where it may be asked."""
    found = DRIVER.search(_text(sysroot / "proc/driver/nvidia/version"))
    if found:
        return found[1]
    if recorded or not shutil.which("nvidia-smi"):
        return None
    ask = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        told = subprocess.run(ask, capture_output=True, text=True, timeout=NVIDIA_SMI_S, check=True).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return None
    return told[0] if told else None


def _toolkit(sysroot: Path) -> "str | None":
    """The version of the CUDA toolkit, as JetPack and NVIDIA's installers leave it."""
    try:
        return str(json.loads(_text(sysroot / "usr/local/cuda/version.json"))["cuda"]["version"])
    except (ValueError, KeyError, TypeError):
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
