"""Which TensorRT is here, and what it can: found by name, judged by its version and by what its classes have."""

import importlib
import platform
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge.core.errors import CompressError, first_line
from edge.core.progress import say

#: The builder's own listing of an engine's layers, which is all there is where no device can load the engine.
LISTING = "Layers:"
KEPT_LINES = 400


class Journal:
    """Warnings, errors and the last listing of layers, of whatever the library did since `clear`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.listener: Any = None  # the library's logger; it must live as long as the library does
        self.clear()

    def clear(self) -> None:
        self.warnings: list[str] = []
        self.errors: list[str] = []
        self.listing = ""

    def take(self, severity: str, message: str) -> None:
        """One message; the library calls this from its own threads too."""
        if message.startswith(LISTING):
            self.listing = message
        if severity not in ("WARNING", "ERROR", "INTERNAL_ERROR"):
            return
        with self._lock:
            kept = self.warnings if severity == "WARNING" else self.errors
            if len(kept) < KEPT_LINES:
                kept.append(" ".join(message.split()))

    def reason(self) -> str:
        """The first error, which the later ones follow from, short enough for a line."""
        return first_line(self.errors[0], 300) if self.errors else "the library gave no reason"


def listen(module: Any) -> Journal:
    """A journal that hears everything of the library `module`.

    A library keeps the first logger of the process and ignores every other, so this is called once for each.
    """
    journal = Journal()

    class Listener(module.ILogger):
        def __init__(self) -> None:
            module.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            journal.take(severity.name, message)

    journal.listener = Listener()
    return journal


TENSORRT, TENSORRT_RTX = "tensorrt", "tensorrt-rtx"
#: The module behind each target, and the oldest and newest major version that this code was written for.
MODULES = {TENSORRT: "tensorrt", TENSORRT_RTX: "tensorrt_rtx"}
OLDEST, NEWEST = {TENSORRT: 10, TENSORRT_RTX: 1}, {TENSORRT: 11, TENSORRT_RTX: 1}
#: The releases between which no device had a DLA: from the first of the two to before the second.
WITHOUT_DLA = ((10, 8), (11, 4, 1))
#: TensorRT-RTX builds for Turing only where asked: its cores multiply no float32 matrices.
NAMED_ONLY = ("7.5",)
JETSON = "etc/nv_tegra_release"

_loaded: "dict[str, Library]" = {}


@dataclass(frozen=True)
class Library:
    """A loaded library. `module` is as imported; everything else follows from it."""

    target: str
    version: str
    module: Any = field(repr=False, compare=False)
    journal: Journal = field(repr=False, compare=False)

    @property
    def name(self) -> str:
        """As people write it: `TensorRT 10.3.0`."""
        return f"{'TensorRT-RTX' if self.ahead_of_time else 'TensorRT'} {self.version}"

    @property
    def number(self) -> tuple[int, ...]:
        return numbers(self.version)

    @property
    def weakly_typed(self) -> bool:
        """Whether precision is a builder's flag unless a network asks for types of its own (10.x)."""
        return hasattr(self.module.BuilderFlag, "FP16")

    @property
    def network_flags(self) -> int:
        """What makes a network strongly typed; later libraries know no other kind."""
        return 1 << int(self.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED) if self.weakly_typed else 0

    @property
    def ahead_of_time(self) -> bool:
        """Whether engines are built without a GPU, for compute capabilities that are named (TensorRT-RTX)."""
        return hasattr(self.module.IBuilderConfig, "num_compute_capabilities")

    @property
    def compute_capabilities(self) -> dict[str, Any]:
        """Those that can be named, `8.6` → the library's own value; empty where the GPU that builds decides."""
        if not self.ahead_of_time:
            return {}
        members = self.module.ComputeCapability.__members__
        return {f"{name[2:-1]}.{name[-1]}": value for name, value in members.items() if name.startswith("SM")}

    def capabilities(self, asked: Sequence[str]) -> tuple[str, ...]:
        """The compute capabilities that an engine is built for: those asked for, else every one from Ampere on."""
        return tuple(asked) or tuple(name for name in self.compute_capabilities if name not in NAMED_ONLY)

    @property
    def hardware_levels(self) -> dict[str, Any]:
        """The levels of hardware compatibility by the names of the command line; none of TensorRT-RTX."""
        if self.ahead_of_time:
            return {}
        names = {"AMPERE_PLUS": "ampere+", "SAME_COMPUTE_CAPABILITY": "same-compute-capability"}
        members = self.module.HardwareCompatibilityLevel.__members__
        return {names[name]: value for name, value in members.items() if name in names}

    @property
    def validity(self) -> bool:
        """Whether it judges the bytes of an engine before loading them (TensorRT-RTX)."""
        return hasattr(self.module.Runtime, "get_engine_validity")

    @property
    def specializes(self) -> bool:
        """Whether it swaps kernels while an engine already answers, unless told not to (TensorRT-RTX)."""
        settings = getattr(self.module, "IRuntimeConfig", None)
        return hasattr(settings, "dynamic_shapes_kernel_specialization_strategy")

    def without_dla(self) -> str:
        """Why no DLA can be had, where it has none."""
        first, last = WITHOUT_DLA
        if self.ahead_of_time:
            return f"{self.name} serves desktop GPUs, which have none"
        if first <= self.number < last:
            return f"{self.name} has no DLA: 10.7 was the last that did until 11.4.1 on AGX Orin"
        return "this device has none"


def load_library(target: str = TENSORRT) -> Library:
    """The library behind a target, loaded once. Absent, broken or too old: CompressError with the fix for here."""
    if target not in _loaded:
        name = MODULES[target]
        try:
            module = importlib.import_module(name)
        except Exception as fault:  # it loads shared objects of its own, which fail in ways of their own
            what = f"{name} is installed but does not load ({first_line(fault)})"
            if isinstance(fault, ModuleNotFoundError) and fault.name == name:
                what = f"{name} is not installed here"
            raise CompressError(f"{what}; {remedy(target)}") from None
        _loaded[target] = wrap_library(target, module)
    return _loaded[target]


def wrap_library(target: str, module: Any) -> Library:
    """An imported module as a Library, its version found new enough."""
    version = str(module.__version__)
    major = numbers(version)[0]
    if major < OLDEST[target]:
        raise CompressError(
            f"{module.__name__} {version} is too old, {OLDEST[target]}.0 or newer is needed; {remedy(target)}"
        )
    if major > NEWEST[target]:
        say(f"{module.__name__} {version} is newer than {NEWEST[target]}.x, which this was written for; going on")
    return Library(target, version, module, listen(module))


def numbers(version: str) -> tuple[int, ...]:
    """`11.4.0.106` → (11, 4, 0, 106); what is no number ends it."""
    parts = []
    for part in version.split("."):
        if not part.isdigit():
            break
        parts.append(int(part))
    return tuple(parts) or (0,)


def remedy(target: str, sysroot: Path = Path("/")) -> str:
    """What makes the library importable on this machine."""
    machine = platform.machine()
    if target == TENSORRT_RTX:
        if machine != "x86_64":
            return f"TensorRT-RTX exists for x86-64 only, this is {machine}: choose the target tensorrt"
        return "pip install tensorrt-rtx-cu13"
    if (sysroot / JETSON).exists():
        return (
            "it is part of JetPack: sudo apt install python3-libnvinfer, and run the system's python3 "
            "(or a venv made with --system-site-packages)"
        )
    return "pip install tensorrt (it fetches NVIDIA's own packages, for the CUDA that the driver supports)"
