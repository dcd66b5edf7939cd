"""Look at a machine: this one, or the recorded tree of another.

Versions are from the metadata of packages; their imports are tried in processes of their own, all at once.
"""

import importlib.util
import json
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from edge.core import machine
from edge.core.errors import CompressError
from edge.doctor.facts import Gpu, MachineFacts, Module
from edge.doctor.probe import MARK

ROOT = Path("/")
TOOLS = ("g++", "ssh", "nvidia-smi", "trtexec")
DRIVER = re.compile(r"(?:Kernel Module|Kernel Module for \S+) +(\d+(?:\.\d+)+)")
NVIDIA_SMI_S = 5


def examine(sysroot: Path = ROOT) -> MachineFacts:
    """What is installed and what there is to run on. `sysroot` other than / : a tree copied from another machine.

    Read there: proc/, sys/, etc/, var/lib/dpkg/status, usr/lib/python3*/dist-packages. Nothing of it is executed.
    """
    if not sysroot.is_dir():
        raise CompressError(f"{sysroot}: no such folder; give the root of a recorded tree, with etc/ and proc/ in it")
    recorded = sysroot.resolve() != ROOT
    jetson = machine.read_release(sysroot)
    if recorded:
        distributions, modules = recorded_packages(sysroot)
        driver: Mapping[str, Any] = {"fault": None}
    else:
        distributions, modules, driver = installed_here()
    return MachineFacts(
        python=_python(sysroot, recorded),
        host=_host(sysroot, recorded),
        distributions=distributions,
        modules=modules,
        gpu=Gpu(
            driver=_driver(sysroot, recorded),
            cuda=driver.get("cuda"),
            devices=tuple(driver.get("devices", ())),
            fault=driver.get("fault"),
            runtime=_toolkit(sysroot) or next(filter(None, map(distributions.get, CUDA_RUNTIMES)), None),
        ),
        jetson=jetson,
        tools=dict.fromkeys(TOOLS) if recorded else {name: shutil.which(name) for name in TOOLS},
        recorded=recorded,
    )


def _python(sysroot: Path, recorded: bool) -> dict[str, Any]:
    """This one, with the `pip` that reaches it, or the newest python3 of a recorded tree, by its library folder."""
    if recorded:
        folders = [folder for place in ("usr/lib", "usr/local/lib") for folder in sysroot.glob(f"{place}/python3.*")]
        releases = [folder.name.removeprefix("python") for folder in folders]
        newest = max(releases, key=lambda name: [int(part) for part in name.split(".") if part.isdigit()], default=None)
        return {"version": newest, "executable": None, "environment": None, "pip": "python3 -m pip"}
    environment = sys.prefix if sys.prefix != sys.base_prefix else None
    # by its short name where that is the one that the shell meets first
    own = shutil.which("pip") == str(Path(sys.executable).with_name("pip"))
    pip = "pip" if own else f"{shlex.quote(sys.executable)} -m pip"
    return {"version": platform.python_version(), "executable": sys.executable, "environment": environment, "pip": pip}


def _host(sysroot: Path, recorded: bool) -> dict[str, Any]:
    state = machine.state(sysroot)
    arch: str | None = platform.machine()
    if recorded:  # ARM names its features, x86 its flags
        cpus = _text(sysroot / "proc/cpuinfo")
        arch = "x86_64" if re.search(r"^flags\s*:", cpus, re.MULTILINE) else None
        if re.search(r"^Features\s*:", cpus, re.MULTILINE) or (sysroot / "usr/lib/aarch64-linux-gnu").is_dir():
            arch = "aarch64"
    memory = re.search(r"^MemTotal:\s+(\d+) kB", _text(sysroot / "proc/meminfo"), re.MULTILINE)
    return {
        "system": f"Linux {state['kernel'] or ''}".rstrip(),
        "arch": arch,
        "cpu": state["cpu"],
        "isa": state["isa"],
        "cores": state["cores"],
        "memory_bytes": int(memory[1]) * 1024 if memory else None,
        "memory_available_bytes": state["memory_available_bytes"],
        "disk_free_bytes": None if recorded else shutil.disk_usage(Path.cwd()).free,
    }


def _driver(sysroot: Path, recorded: bool) -> "str | None":
    """The driver's version: the kernel module's own words, else nvidia-smi's where it may be asked."""
    module = DRIVER.search(_text(sysroot / "proc/driver/nvidia/version"))
    if module:
        return module[1]
    if recorded or not shutil.which("nvidia-smi"):
        return None
    ask = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        versions = subprocess.run(ask, capture_output=True, text=True, timeout=NVIDIA_SMI_S, check=True).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return None
    return versions[0] if versions else None


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


#: Import name → the distributions that bring it, the usual one first.
MODULES = {
    module: tuple(distributions)
    for module, *distributions in map(
        str.split,
        (
            "numpy           numpy",
            "torch           torch",
            "torchvision     torchvision",
            "onnx            onnx",
            "onnxscript      onnxscript",
            "onnxruntime     onnxruntime onnxruntime-gpu",
            "tensorrt        tensorrt tensorrt-cu13 tensorrt-cu12 tensorrt-cu11",
            "tensorrt_rtx    tensorrt-rtx tensorrt-rtx-cu13 tensorrt-rtx-cu12",
            "torch_tensorrt  torch-tensorrt torch-tensorrt-rtx",
            "modelopt        nvidia-modelopt",
        ),
    )
}
#: Wheels that bring CUDA's runtime library.
CUDA_RUNTIMES = ("nvidia-cuda-runtime", "nvidia-cuda-runtime-cu13", "nvidia-cuda-runtime-cu12")
#: Pure Python whose import takes a second; its version is all there is to know.
UNTRIED = ("onnxscript",)
TIMEOUT_S = 30.0
#: Where Debian's and pip's packages lie in a recorded tree.
SITES = ("usr/local/lib/python3*/dist-packages", "usr/lib/python3*/dist-packages", "usr/lib/python3/dist-packages")
TORCH_CUDA = re.compile(r"^cuda\b[^=]*= *['\"]([\d.]+)['\"]", re.MULTILINE)


def installed_here() -> tuple[dict[str, str], dict[str, Module], dict[str, Any]]:
    """This Python's distributions, its modules with their imports tried, and what the CUDA driver answers."""
    versions = _distributions(metadata.distributions())
    present = [name for name in MODULES if importlib.util.find_spec(name) is not None]
    answers = probe_imports([*(name for name in present if name not in UNTRIED), "cuda"])
    modules = {}
    for name in MODULES:
        module = _from_metadata(name, versions, None if name in present else "its files are missing")
        if name in present and name in answers:
            # what the import says beside the metadata, or in its place where there is none
            answer, fault = answers[name], answers[name].get("fault")
            module = module or Module(name, answer.get("version") or "of unknown version")
            module = replace(module, works=fault is None, fault=fault, facts=answer.get("facts", {}))
        if module is not None:
            modules[name] = module
    return versions, modules, answers["cuda"]


def recorded_packages(sysroot: Path) -> tuple[dict[str, str], dict[str, Module]]:
    """The same from the metadata below `sysroot`; no import can be tried there."""
    paths = [folder for pattern in SITES for folder in sorted(sysroot.glob(pattern))]
    versions = _distributions(metadata.distributions(path=[str(path) for path in paths]))
    modules = {name: _from_metadata(name, versions, None) for name in MODULES}
    present = {name: module for name, module in modules.items() if module}
    if "torch" in present:
        texts = [file.read_text(errors="replace") for path in paths for file in path.glob("torch/version.py")]
        cuda = next((match[1] for text in texts if (match := TORCH_CUDA.search(text))), None)
        present["torch"] = Module(present["torch"].distribution, present["torch"].version, facts={"cuda": cuda})
    return versions, present


def _distributions(listed: Iterable[metadata.Distribution]) -> dict[str, str]:
    """Those distributions that matter here, by their normalised names; of two the first on the path counts."""
    wanted = {*CUDA_RUNTIMES, *(name for names in MODULES.values() for name in names)}
    versions: dict[str, str] = {}
    for distribution in listed:
        name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"] or "").lower()
        if name in wanted:
            versions.setdefault(name, distribution.version)
    return versions


def _from_metadata(name: str, versions: Mapping[str, str], fault: "str | None") -> "Module | None":
    """A module as its metadata alone tells of it."""
    listed = next((distribution for distribution in MODULES[name] if distribution in versions), None)
    return Module(listed, versions[listed], False if fault else None, fault) if listed else None


def probe_imports(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """What `probe.py` answers for each name, every one in a process of its own."""
    path = f"import sys; sys.path[:] = {sys.path!r}\n"  # what this process imports, not what the working folder holds
    program = path + resources.files("edge.doctor").joinpath("probe.py").read_text(encoding="utf-8")
    started = {
        name: subprocess.Popen(
            [sys.executable, "-c", program, name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for name in names
    }
    try:
        return {name: _answer(process) for name, process in started.items()}
    finally:
        for process in started.values():
            process.kill()
            with process:  # closes its pipe and waits for its end
                pass


def _answer(process: "subprocess.Popen[str]") -> dict[str, Any]:
    try:
        text, _ = process.communicate(timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return {"fault": f"did not finish in {TIMEOUT_S:.0f} s"}
    _, mark, answer = text.rpartition(MARK)
    if mark:
        return dict(json.loads(answer))
    code = process.returncode
    ended = f"by {signal.Signals(-code).name}" if code < 0 else f"with code {code}"
    return {"fault": f"its process ended {ended}"}
