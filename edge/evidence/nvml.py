"""An NVIDIA GPU's state through NVML, the driver's own library, by ctypes.

Functions, structures and constants: nvml.h, "NVML API Reference". What a GPU or driver does not support is left out and
noted; NVML on a Jetson answers a part of it (Thor) or hardly anything (Orin).
"""

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from edge.evidence.tree import Tree

LIBRARY = "libnvidia-ml.so.1"
GRAPHICS, MEMORY = 0, 2  # nvmlClockType_t
DIE, SLOWDOWN = 0, 1  # nvmlTemperatureSensors_t, nvmlTemperatureThresholds_t
#: nvmlClocksEventReasons: what holds the clocks down. Idle, locked and display clocks are settings, no faults.
REASONS = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x20: "heat (software)",
    0x40: "heat (hardware)",
    0x80: "power brake",
}
SETTINGS = {0x1: "idle", 0x2: "clocks set by the user", 0x10: "sync boost", 0x100: "display clocks"}


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class _Utilization(ctypes.Structure):
    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


class _Process(ctypes.Structure):
    """nvmlProcessInfo_t of the functions that end in _v3."""

    _fields_ = (
        ("pid", ctypes.c_uint),
        ("bytes", ctypes.c_ulonglong),
        ("gpu_instance", ctypes.c_uint),
        ("compute_instance", ctypes.c_uint),
    )


class NvmlError(Exception):
    """NVML's own words for what failed."""


class NvmlDevice:
    """One opened GPU. Every reader returns a number or raises NvmlError."""

    def __init__(self, library: ctypes.CDLL, device: ctypes.c_void_p) -> None:
        self._library, self._device = library, device

    def call(self, function: str, *arguments: Any) -> None:
        _check(self._library, function, self._device, *arguments)

    def number(self, function: str, *arguments: Any, kind: Any = ctypes.c_uint) -> int:
        value = kind()
        self.call(function, *arguments, ctypes.byref(value))
        return int(value.value)

    def name(self) -> str:
        text = ctypes.create_string_buffer(96)
        self.call("nvmlDeviceGetName", text, ctypes.c_uint(len(text)))
        return text.value.decode(errors="replace")

    def compute_capability(self) -> str:
        major, minor = ctypes.c_int(), ctypes.c_int()
        self.call("nvmlDeviceGetCudaComputeCapability", ctypes.byref(major), ctypes.byref(minor))
        return f"{major.value}.{minor.value}"

    def clock(self, of: int = GRAPHICS) -> int:
        """MHz now."""
        return self.number("nvmlDeviceGetClockInfo", ctypes.c_int(of))

    def max_clock(self, of: int = GRAPHICS) -> int:
        return self.number("nvmlDeviceGetMaxClockInfo", ctypes.c_int(of))

    def temperature(self) -> int:
        """°C of the die."""
        return self.number("nvmlDeviceGetTemperature", ctypes.c_int(DIE))

    def slowdown_temperature(self) -> int:
        """°C from which on the hardware slows down."""
        return self.number("nvmlDeviceGetTemperatureThreshold", ctypes.c_int(SLOWDOWN))

    def reasons(self) -> int:
        """Bits of REASONS and SETTINGS. Drivers before 535 know the function by its older name."""
        try:
            return self.number("nvmlDeviceGetCurrentClocksEventReasons", kind=ctypes.c_ulonglong)
        except AttributeError:
            return self.number("nvmlDeviceGetCurrentClocksThrottleReasons", kind=ctypes.c_ulonglong)

    def power(self) -> int:
        """mW of the whole board."""
        return self.number("nvmlDeviceGetPowerUsage")

    def power_limit(self) -> int:
        return self.number("nvmlDeviceGetEnforcedPowerLimit")

    def energy(self) -> int:
        """mJ since the driver was loaded."""
        return self.number("nvmlDeviceGetTotalEnergyConsumption", kind=ctypes.c_ulonglong)

    def busy(self) -> int:
        """Per cent of the last sampling period of the driver (1/6 to 1 s) in which a kernel ran."""
        utilization = _Utilization()
        self.call("nvmlDeviceGetUtilizationRates", ctypes.byref(utilization))
        return int(utilization.gpu)

    def memory(self) -> dict[str, int]:
        sizes = _Memory()
        self.call("nvmlDeviceGetMemoryInfo", ctypes.byref(sizes))
        return {"total_bytes": int(sizes.total), "used_bytes": int(sizes.used)}

    def persistence(self) -> bool:
        return bool(self.number("nvmlDeviceGetPersistenceMode"))

    def ecc(self) -> bool:
        now, pending = ctypes.c_int(), ctypes.c_int()
        self.call("nvmlDeviceGetEccMode", ctypes.byref(now), ctypes.byref(pending))
        return bool(now.value)

    def processes(self) -> list[int]:
        """Ids of the processes that compute on it."""
        count = ctypes.c_uint(64)
        rows = (_Process * count.value)()
        self.call("nvmlDeviceGetComputeRunningProcesses_v3", ctypes.byref(count), rows)
        return [int(row.pid) for row in rows[: count.value]]


@contextmanager
def opened_nvml(library: str = LIBRARY, index: "int | None" = None) -> Iterator[tuple[NvmlDevice, ctypes.CDLL]]:
    """The GPU to compute on: `index`, else the first of CUDA_VISIBLE_DEVICES, else 0. NvmlError where there is none."""
    try:
        loaded = ctypes.CDLL(library)
    except OSError as fault:
        raise NvmlError(f"{library} cannot be loaded ({fault})") from None
    _check(loaded, "nvmlInit_v2")
    try:
        yield NvmlDevice(loaded, _device(loaded, index)), loaded
    finally:
        loaded.nvmlShutdown()


def _device(library: ctypes.CDLL, index: "int | None") -> ctypes.c_void_p:
    device = ctypes.c_void_p()
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
    if index is None and first.startswith(("GPU-", "MIG-")):
        _check(library, "nvmlDeviceGetHandleByUUID", first.encode(), ctypes.byref(device))
    else:
        number = index if index is not None else int(first) if first.isdigit() else 0
        _check(library, "nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(number), ctypes.byref(device))
    return device


def _check(library: ctypes.CDLL, function: str, *arguments: Any) -> None:
    code = getattr(library, function)(*arguments)
    if code == 0:
        return
    words = library.nvmlErrorString
    words.restype = ctypes.c_char_p
    raise NvmlError(f"{function}: {(words(code) or b'').decode(errors='replace') or f'error {code}'}")


def describe_gpu(tree: Tree, gpu: NvmlDevice, library: ctypes.CDLL, own: "tuple[int, ...]" = ()) -> dict[str, Any]:
    """Everything that NVML tells of the GPU; null and a row in `tree.unreadable` for what it does not.

    `own`: processes that are ours, apart from this one.
    """

    def ask(what: str, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except (NvmlError, AttributeError) as fault:
            tree.lacks(what, str(fault), "nothing to do: this GPU or driver does not tell it")
            return None

    reasons = ask("reasons for the GPU's clocks", gpu.reasons)
    running = ask("processes on the GPU", gpu.processes)
    foreign = [] if running is None else [pid for pid in running if pid not in (os.getpid(), *own)]
    visible = [pid for pid in foreign if (tree.root / f"proc/{pid}").exists()]
    return {
        "name": ask("name of the GPU", gpu.name),
        "compute_capability": ask("compute capability", gpu.compute_capability),
        "driver": ask("driver", lambda: _driver(library)),
        "cuda": ask("CUDA version of the driver", lambda: _cuda(library)),
        "clocks": {
            "gpu": _clock(ask, gpu, "the GPU", GRAPHICS),
            "gpu_memory": _clock(ask, gpu, "the GPU's memory", MEMORY),
        },
        "temperature_c": ask("temperature of the GPU", gpu.temperature),
        "slowdown_c": ask("temperature at which the GPU slows down", gpu.slowdown_temperature),
        "held_down_by": None if reasons is None else words(reasons),
        "power_mw": ask("power of the GPU", gpu.power),
        "power_limit_mw": ask("power limit of the GPU", gpu.power_limit),
        "energy_mj": ask("energy counter of the GPU", gpu.energy),
        "busy": ask("utilisation of the GPU", lambda: gpu.busy() / 100),
        "memory": ask("memory of the GPU", gpu.memory),
        "others": None if running is None else visible,
        # in a container the driver tells the host's numbers: another's process, or this one under that number
        "hidden": None if running is None else len(foreign) - len(visible),
        "persistence": ask("persistence mode", gpu.persistence),
        "ecc": ask("ECC", gpu.ecc),
    }


def _clock(ask: Callable[[str, Callable[[], Any]], Any], gpu: NvmlDevice, what: str, of: int) -> dict[str, Any]:
    return {
        "mhz": ask(f"clock of {what}", lambda: gpu.clock(of)),
        "max_mhz": ask(f"highest clock of {what}", lambda: gpu.max_clock(of)),
    }


def words(reasons: int) -> list[str]:
    """What of REASONS holds the clocks down."""
    return [word for bit, word in REASONS.items() if reasons & bit]


def _driver(library: ctypes.CDLL) -> str:
    text = ctypes.create_string_buffer(80)
    _check(library, "nvmlSystemGetDriverVersion", text, ctypes.c_uint(len(text)))
    return text.value.decode(errors="replace")


def _cuda(library: ctypes.CDLL) -> str:
    """`12.6`: the newest CUDA that the driver knows."""
    value = ctypes.c_int()
    _check(library, "nvmlSystemGetCudaDriverVersion_v2", ctypes.byref(value))
    return f"{value.value // 1000}.{value.value % 1000 // 10}"
