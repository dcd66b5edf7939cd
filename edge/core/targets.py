"""The targets that a stage can be exported for, one object each, and the devices that execute them.

The only place where names of code elsewhere are written down and resolved: what an object here names by
`module:attribute` is imported when it is used. Installed packages add to the table by an entry point in
`robust_compress.targets` that is a `Target`. Standard library only.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edge.core import plugins
from edge.core.errors import CompressError, known_name

#: What executes an exported file, and how it is asked for.
DEVICES = {
    "cpu": "this machine's processor, through ONNX Runtime",
    "cuda": "this machine's NVIDIA GPU",
    "jetson": "an NVIDIA Jetson: this machine, or one reached by --host",
}
PRECISIONS = {
    "auto": "int8 from a quantized stage; else the arithmetic that suits the target best",
    "int8": "8-bit integers where the stage quantizes; the rest in the target's own floats",
    "float32": "IEEE single precision throughout",
    "fp16": "IEEE half precision, float32 in and out",
    "bf16": "bfloat16, float32 in and out",
}
#: What opens `ssh://HOST/WHERE`; only a workstation has it.
REMOTE = "compress.remote.runner:open_url"
#: The folder that a board is sent whole.
DEVICE_SIDE = "edge"


@dataclass(frozen=True)
class Target:
    """What a stage can be exported for. Names of code are `module:attribute`.

    `runtime`: what the graph is emitted for, as contract.json tells consumers. `dialect`: whose INT8 it reads, a name
    that targets share which read the same, and `grid` the object that says how (`compress.quantization.grids`); None
    refuses INT8. `auto`: the precision of a stage that is not quantized where none is asked for; `rest`: what an INT8
    graph computes in where not in integers. `graph_is_executed`: whether model.onnx itself is what runs.
    `any_batch`: whether one call takes any number of images, else those of `batch`. `ignores`: dotted keys of the
    export's config that decide nothing of it; `refuses`: keys of its section `engine` that are said to other targets.

    emitter    (target, work, source, dataset, config) → export.contract.Emission: writes the files of a stage
    opener     (stage, *, batch_size, threads, device) → edge.runtimes.runner.Runner
    doctor     an edge.doctor.TargetDoctor: whether a machine can build and run it
    optimised  (ONNX bytes) → the graph that the runtime makes of it, for `compress inspect`; None: not known

    `device_package`: the package that holds `opener` and `doctor` and that a board can be sent; None where a board
    cannot run it.
    """

    name: str
    about: str
    runtime: str
    emitter: str
    opener: str
    doctor: str
    devices: "tuple[str, ...]" = ("cpu",)
    dialect: "str | None" = None
    grid: "str | None" = None
    precisions: "tuple[str, ...]" = ("float32", "fp16", "bf16")
    auto: str = "float32"
    rest: str = "float32"
    graph_is_executed: bool = True
    any_batch: bool = True
    candidates: "tuple[str, ...]" = ("float32",)
    ignores: "tuple[str, ...]" = ("batch", "engine")
    refuses: "tuple[str, ...]" = ()
    optimised: "str | None" = None
    device_package: "str | None" = None


_SIGNED: "dict[str, Any]" = {
    "runtime": "tensorrt",
    "dialect": "tensorrt",
    "grid": "compress.quantization.grids:TENSORRT",
    "auto": "fp16",
    "rest": "fp16",
    "graph_is_executed": False,
    "any_batch": False,
    "candidates": ("fp16", "int8"),
}
_ENGINE = _SIGNED | {
    "opener": "edge.runtimes.tensorrt.runner:open_stage",
    "ignores": ("engine.timing_cache", "engine.program"),
    "device_package": DEVICE_SIDE,
}
_ONE_GPU = ("hardware_compatibility", "version_compatible", "dla")
_PROGRAM = _SIGNED | {
    "devices": ("cuda",),
    "emitter": "export.targets.torch_tensorrt.emission:emit_program",
    "opener": "export.targets.torch_tensorrt.program_runner:open_stage",
    "ignores": ("engine.timing_cache",),
    "refuses": (*_ONE_GPU, "compute_capabilities", "rebuilds", "deferred"),
}

#: The first one is meant where none is named.
OURS = (
    Target(
        "onnx",
        "ONNX for ONNX Runtime: float, or INT8 (U8 activations) from a quantized stage",
        runtime="onnx",
        dialect="onnx",
        grid="compress.quantization.grids:ONNX_RUNTIME",
        devices=("cpu", "cuda", "jetson"),
        candidates=("float32", "fp16", "int8"),
        emitter="export.targets.onnx.emission:emit_onnx",
        opener="edge.runtimes.onnxruntime.runner:open_stage",
        doctor="edge.runtimes.onnxruntime.doctor:ONNX",
        optimised="export.targets.onnx.layers:optimised",
        device_package=DEVICE_SIDE,
    ),
    Target(
        "tensorrt",
        "a TensorRT engine, 10.x or 11.x; without a GPU here, deferred: built on the device",
        devices=("cuda", "jetson"),
        emitter="export.targets.tensorrt.emission:emit_tensorrt",
        doctor="edge.runtimes.tensorrt.doctor:TENSORRT",
        refuses=("compute_capabilities",),
        **_ENGINE,
    ),
    Target(
        "tensorrt-rtx",
        "a TensorRT-RTX engine for desktop RTX GPUs, built ahead of time on any x86-64 machine",
        devices=("cuda",),
        emitter="export.targets.tensorrt.emission:emit_tensorrt_rtx",
        doctor="edge.runtimes.tensorrt.doctor:TENSORRT_RTX",
        refuses=_ONE_GPU,
        **_ENGINE,
    ),
    Target(
        "torch-tensorrt",
        "a Torch-TensorRT program (.ep), for a process that has torch",
        doctor="export.targets.torch_tensorrt.versions:DOCTOR",
        **_PROGRAM,
    ),
    Target(
        "torch-tensorrt-rtx",
        "the same on TensorRT-RTX",
        doctor="export.targets.torch_tensorrt.versions:DOCTOR_RTX",
        **_PROGRAM,
    ),
)
_BY_NAME = {target.name: target for target in OURS}
DEFAULT = OURS[0]
DIALECT = "onnx"  # on whose grid a network is quantized where none is named


# ------------------------------------------------------------------------------------------------- the registry


def names() -> "tuple[str, ...]":
    """Every target's name, ours before those of installed packages. One of these that is ours: CompressError."""
    added = plugins.installed("targets")
    for name in added:
        if name in _BY_NAME:
            raise CompressError(f"targets {name!r}: {added[name].value} has the name of one of ours; uninstall it")
    return (*_BY_NAME, *added)


def get(name: str) -> Target:
    """The target of that name; an unknown one, or an entry point that is no Target of its name: CompressError."""
    if name in _BY_NAME:
        return _BY_NAME[name]
    return plugins.load("targets", known_name("target", name, names()), Target)


def every() -> "tuple[Target, ...]":
    """All targets, those of installed packages imported; of these a broken one is left out with a line."""
    names()  # refuses what has a name of ours
    return (*OURS, *plugins.loaded("targets", Target))


def on_board() -> "tuple[Target, ...]":
    """Those that a board can be sent."""
    return tuple(target for target in every() if target.device_package is not None)


def executed_by(device: str) -> "tuple[str, ...]":
    """Names of the targets that a device of `DEVICES` executes; an unknown device: CompressError."""
    known_name("device", device, DEVICES)
    return tuple(target.name for target in every() if device in target.devices)


def dialects() -> "tuple[str, ...]":
    """Names of the INT8 dialects, each once."""
    return tuple(dict.fromkeys(target.dialect for target in every() if target.dialect is not None))


# ------------------------------------------------------------------------------------------- what a target names


def emitter_of(target: Target) -> "Callable[..., Any]":
    """What writes the files of a stage for it."""
    return _function(target, "emitter", target.emitter, 5)


def opener_of(target: Target) -> "Callable[..., Any]":
    """What opens a stage of it."""
    return _function(target, "opener", target.opener, 1, "batch_size", "threads", "device")


def optimiser(target: Target) -> "Callable[..., Any] | None":
    """What shows its graph as its runtime executes it, where something does."""
    return None if target.optimised is None else _function(target, "optimised", target.optimised, 1)


def doctor_of(target: Target) -> Any:
    """Its `edge.doctor.TargetDoctor`."""
    return _resolved(target, "doctor", target.doctor)


def grid_of(dialect: str) -> Any:
    """The object behind the name of an INT8 dialect; an unknown one: CompressError."""
    name = known_name("runtime", dialect, dialects())
    target = next(target for target in every() if target.dialect == name)
    if target.grid is None:
        raise CompressError(f"target {target.name!r}: has the INT8 dialect {name!r} without a grid; name one")
    return _resolved(target, "grid", target.grid)


def remote_opener() -> "Callable[..., Any]":
    """What opens a runner on another machine."""
    module, _, attribute = REMOTE.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    return function


def _function(target: Target, role: str, dotted: str, positional: int, *keywords: str) -> "Callable[..., Any]":
    """The function behind a name, which must take that many arguments and those keywords."""
    import inspect

    function: Callable[..., Any] = _resolved(target, role, dotted)
    try:
        inspect.signature(function).bind(*[None] * positional, **dict.fromkeys(keywords))
    except TypeError as fault:
        raise CompressError(
            f"target {target.name!r}: its {role} {dotted} cannot be called as one ({fault}); "
            f"edge.core.targets.Target says what it takes"
        ) from None
    return function


def _resolved(target: Target, role: str, dotted: str) -> Any:
    module, _, attribute = dotted.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as fault:  # whatever another package raises while it is imported
        if target in OURS and not isinstance(fault, ModuleNotFoundError):
            raise  # our own fault
        raise CompressError(
            f"target {target.name!r}: its {role} {dotted} cannot be had here ({type(fault).__name__}: {fault}); "
            f"install what it needs"
        ) from None
