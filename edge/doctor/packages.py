"""What Python has installed: versions from the metadata, and imports tried in processes of their own, all at once."""

import importlib.util
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from edge.doctor.found import Module
from edge.doctor.probe import MARK

#: Import name → the distributions that bring it, the usual one first.
MODULES = {
    "numpy": ("numpy",),
    "torch": ("torch",),
    "torchvision": ("torchvision",),
    "onnx": ("onnx",),
    "onnxscript": ("onnxscript",),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt-cu11"),
    "tensorrt_rtx": ("tensorrt-rtx", "tensorrt-rtx-cu13", "tensorrt-rtx-cu12"),
    "torch_tensorrt": ("torch-tensorrt", "torch-tensorrt-rtx"),
    "modelopt": ("nvidia-modelopt",),
}
#: Wheels that bring CUDA's runtime library.
CUDA_RUNTIMES = ("nvidia-cuda-runtime", "nvidia-cuda-runtime-cu13", "nvidia-cuda-runtime-cu12")
#: Pure Python whose import takes a second; its version is all there is to know.
UNTRIED = ("onnxscript",)
TIMEOUT_S = 30.0
#: Where Debian's and pip's packages lie in a recorded tree.
SITES = ("usr/local/lib/python3*/dist-packages", "usr/lib/python3*/dist-packages", "usr/lib/python3/dist-packages")
TORCH_CUDA = re.compile(r"^cuda\b[^=]*= *['\"]([\d.]+)['\"]", re.MULTILINE)


def here() -> tuple[dict[str, str], dict[str, Module], dict[str, Any]]:
    """This Python's distributions, its modules with their imports tried, and what the CUDA driver answers."""
    versions = _distributions(metadata.distributions())
    present = [name for name in MODULES if importlib.util.find_spec(name) is not None]
    answers = probe([*(name for name in present if name not in UNTRIED), "cuda"])
    told = {name: _told(name, versions, None if name in present else "its files are missing") for name in MODULES}
    tried = {name: _tried(name, told[name], answers[name]) for name in present if name in answers}
    modules = {name: tried.get(name) or told[name] for name in MODULES}
    return versions, {name: module for name, module in modules.items() if module}, answers["cuda"]


def recorded(sysroot: Path) -> tuple[dict[str, str], dict[str, Module]]:
    """The same from the metadata below `sysroot`; no import can be tried there."""
    paths = [folder for pattern in SITES for folder in sorted(sysroot.glob(pattern))]
    versions = _distributions(metadata.distributions(path=[str(path) for path in paths]))
    modules = {name: _told(name, versions, None) for name in MODULES}
    found = {name: module for name, module in modules.items() if module}
    if "torch" in found:
        texts = [file.read_text(errors="replace") for path in paths for file in path.glob("torch/version.py")]
        cuda = next((match[1] for text in texts if (match := TORCH_CUDA.search(text))), None)
        found["torch"] = Module(found["torch"].distribution, found["torch"].version, facts={"cuda": cuda})
    return versions, found


def _distributions(listed: Iterable[metadata.Distribution]) -> dict[str, str]:
    """Those distributions that matter here, by their normalised names; of two the first on the path counts."""
    wanted = {*CUDA_RUNTIMES, *(name for names in MODULES.values() for name in names)}
    found: dict[str, str] = {}
    for distribution in listed:
        name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"] or "").lower()
        if name in wanted:
            found.setdefault(name, distribution.version)
    return found


def _tried(name: str, told: "Module | None", answer: Mapping[str, Any]) -> Module:
    """What the import says beside the metadata, or in its place where there is none."""
    listed = told or Module(name, answer.get("version") or "of unknown version")
    fault = answer.get("fault")
    return Module(listed.distribution, listed.version, fault is None, fault, answer.get("facts", {}))


def _told(name: str, versions: Mapping[str, str], fault: "str | None") -> "Module | None":
    """A module as its metadata alone tells of it."""
    listed = next((one for one in MODULES[name] if one in versions), None)
    return Module(listed, versions[listed], False if fault else None, fault) if listed else None


def probe(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """What `probe.py` answers for each name, every one in a process of its own."""
    path = f"import sys; sys.path[:] = {sys.path!r}\n"  # what this process imports, not what the working folder holds
    program = path + resources.files("edge.doctor").joinpath("probe.py").read_text()
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
