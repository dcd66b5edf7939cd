"""What can be built and run here, a target at a time, and why not."""

from collections.abc import Callable
from dataclasses import dataclass

from edge.doctor.facts import MachineFacts
from edge.runtimes.tensorrt.library import remedy

#: What writes the ONNX graph that every target starts from.
EXPORTER = ("torch", "onnx", "onnxscript")
LEAST_SM = 7.5  # TensorRT-RTX: Turing


@dataclass(frozen=True)
class Capability:
    """`can`: yes, deferred (made elsewhere from what is written here) or no; `why` in words."""

    can: str
    why: str


@dataclass(frozen=True)
class TargetDoctor:
    """How one target stands on a machine: may it be made, may it be executed."""

    name: str
    devices: tuple[str, ...]
    build: Callable[[MachineFacts], Capability]
    run: Callable[[MachineFacts], Capability]


def exporter_lacks(found: MachineFacts) -> "str | None":
    """Why no stage can be exported here; None where it can."""
    for name in EXPORTER:
        if name not in found.modules:
            return f"{name} is not installed; {found.pip('install robust-compress')}"
        if not found.usable(name):
            return f"import {name} fails ({found.modules[name].fault})"
    return None


def gpu_lacks(found: MachineFacts) -> "str | None":
    """Why no GPU can be used here; None where one can."""
    return None if found.has_gpu else (found.gpu.fault or "no NVIDIA GPU")


def _library_lacks(found: MachineFacts, target: str) -> "str | None":
    name = target.replace("-", "_")
    if name not in found.modules:
        return f"{name} is not installed; {_remedy(found, target)}"
    if not found.usable(name):
        return f"import {name} fails ({found.modules[name].fault})"
    return None


def _remedy(found: MachineFacts, target: str) -> str:
    if found.jetson and target == "tensorrt":
        return (
            "it is part of JetPack: sudo apt-get install python3-libnvinfer, and run the system's python3 "
            "(or a venv made with --system-site-packages)"
        )
    return remedy(target)


def _onnx_build(found: MachineFacts) -> Capability:
    lacks = exporter_lacks(found)
    return Capability("no", lacks) if lacks else Capability("yes", f"{found.written('torch')}, {found.written('onnx')}")


def _onnx_run(found: MachineFacts) -> Capability:
    if "onnxruntime" not in found.modules:
        return Capability("no", f"onnxruntime is not installed; {found.pip('install onnxruntime')}")
    if not found.usable("onnxruntime"):
        return Capability("no", f"import onnxruntime fails ({found.modules['onnxruntime'].fault})")
    told = found.fact("onnxruntime", "providers") or ()
    where = "processor and GPU" if "CUDAExecutionProvider" in told and found.has_gpu else "processor"
    return Capability("yes", f"{found.written('onnxruntime')} on the {where}")


def _tensorrt_build(found: MachineFacts) -> Capability:
    lacks = _library_lacks(found, "tensorrt") or gpu_lacks(found)
    if not lacks and found.fact("tensorrt", "builder") is False:
        lacks = f"{found.written('tensorrt')} is the lean runtime, which has no builder"
    without = exporter_lacks(found)
    if lacks:
        return (
            Capability("no", without)
            if without
            else Capability("deferred", f"ONNX and recipe here, engine there: {lacks}")
        )
    rest = f"from an exported folder; exporting a stage: {without}" if without else "on this GPU"
    return Capability("yes", f"{found.written('tensorrt')} {rest}")


def _tensorrt_run(found: MachineFacts) -> Capability:
    lacks = gpu_lacks(found) or _library_lacks(found, "tensorrt")
    return Capability("no", lacks) if lacks else Capability("yes", found.written("tensorrt"))


def _rtx_build(found: MachineFacts) -> Capability:
    if lacks := _library_lacks(found, "tensorrt-rtx"):
        without = exporter_lacks(found)
        return Capability("no", without or lacks)
    if lacks := exporter_lacks(found):
        return Capability("no", lacks)
    return Capability("yes", f"{found.written('tensorrt_rtx')}, ahead of time: no GPU is needed")


def _rtx_run(found: MachineFacts) -> Capability:
    lacks = gpu_lacks(found) or _library_lacks(found, "tensorrt-rtx")
    if lacks:
        return Capability("no", lacks)
    old = [str(device["name"]) for device in found.gpu.devices if float(device["sm"]) < LEAST_SM]
    if len(old) == len(found.gpu.devices):
        return Capability(
            "no", f"{', '.join(old) or 'this board'}: TensorRT-RTX serves desktop GPUs from SM {LEAST_SM} on"
        )
    return Capability("yes", found.written("tensorrt_rtx"))


TARGETS = (
    TargetDoctor("onnx", ("cpu", "cuda", "jetson"), _onnx_build, _onnx_run),
    TargetDoctor("tensorrt", ("cuda", "jetson"), _tensorrt_build, _tensorrt_run),
    TargetDoctor("tensorrt-rtx", ("cuda",), _rtx_build, _rtx_run),
)
