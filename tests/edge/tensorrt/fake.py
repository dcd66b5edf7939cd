"""TensorRT as it would be on a machine with a GPU, for what no machine here can do: load an engine and execute it.

The names are those of the real bindings (tests/slow/test_tensorrt_bindings.py holds the code to these); the engine is a
linear classifier that reads and writes the "device memory" of the stand-in for libcudart.
"""

import ctypes
import enum
import struct
from types import SimpleNamespace
from typing import Any

import numpy as np

from edge.runtimes.tensorrt.library import Library, listen, numbers

SHAPE, CLASSES = (1, 4, 4), 3
ENQUEUED: list[int] = []
BUILT: list[Any] = []


def library(version: str = "10.3.0", **changes: Any) -> Library:
    """A loaded TensorRT of that version; `changes` replace members of the module."""
    module = _module(version)
    for name, value in changes.items():
        setattr(module, name, value)
    return Library("tensorrt", version, module, listen(module))


def weights() -> np.ndarray:
    """Of the linear classifier in every engine, (K, C·H·W)."""
    return np.random.default_rng(1).normal(size=(CLASSES, int(np.prod(SHAPE)))).astype(np.float32)


def logits(images: np.ndarray) -> np.ndarray:
    """What the classifier says of float32 (N,C,H,W)."""
    return np.asarray(images.reshape(len(images), -1) @ weights().T, np.float32)


def plan(version: str = "10.3.0", batch: tuple[int, int, int] = (1, 1, 64)) -> bytes:
    """An engine's bytes: TensorRT's tag and version where it has them, then the batch range."""
    four = (*numbers(version), 0, 0, 0, 0)[:4]
    return b"ftrt" + bytes(20) + bytes(four) + struct.pack("<3i", *batch)


def _enum(name: str, members: str) -> Any:
    return enum.IntEnum(name, members.split(), start=0)  # type: ignore[misc]


def _module(version: str) -> Any:
    weak = " FP16 INT8" if version.startswith("10.") else ""
    levels = "NONE AMPERE_PLUS" + ("" if version.startswith("10.3") else " SAME_COMPUTE_CAPABILITY")
    module = SimpleNamespace(
        __version__=version,
        __name__="tensorrt",
        ILogger=type("ILogger", (), {}),
        IProgressMonitor=type("IProgressMonitor", (), {}),
        IBuilderConfig=type("IBuilderConfig", (), {}),
        BuilderFlag=_enum("BuilderFlag", "TF32 VERSION_COMPATIBLE GPU_FALLBACK" + weak),
        NetworkDefinitionCreationFlag=_enum("NetworkDefinitionCreationFlag", "EXPLICIT_BATCH STRONGLY_TYPED"),
        HardwareCompatibilityLevel=_enum("HardwareCompatibilityLevel", levels),
        ProfilingVerbosity=_enum("ProfilingVerbosity", "LAYER_NAMES_ONLY NONE DETAILED"),
        MemoryPoolType=_enum("MemoryPoolType", "WORKSPACE"),
        DeviceType=_enum("DeviceType", "GPU DLA"),
        TensorIOMode=_enum("TensorIOMode", "NONE INPUT OUTPUT"),
        DataType=_enum("DataType", "FLOAT HALF"),
        LayerInformationFormat=_enum("LayerInformationFormat", "ONELINE JSON"),
        dla_cores=0,
    )
    module.Runtime = lambda listener: Runtime(module)
    module.Builder = lambda listener: Builder(module)
    module.OnnxParser = lambda network, listener: SimpleNamespace(parse=lambda content: True, num_errors=0)
    return module


class Runtime:
    """Loads what `plan` wrote of its own version."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def deserialize_cuda_engine(self, content: bytes) -> "Engine | None":
        four = (*numbers(self.module.__version__), 0, 0)[:4]
        return Engine(self.module, struct.unpack("<3i", content[28:40])) if content[24:28] == bytes(four) else None


class Engine:
    num_io_tensors = 2
    device_memory_size_v2 = 4096

    def __init__(self, module: Any, batch: tuple[int, int, int]) -> None:
        self.module, self.batch = module, batch

    def get_tensor_name(self, place: int) -> str:
        return ("image", "logits")[place]

    def get_tensor_mode(self, name: str) -> Any:
        return self.module.TensorIOMode.INPUT if name == "image" else self.module.TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        return self.module.DataType.FLOAT

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, *SHAPE) if name == "image" else (-1, CLASSES)

    def get_tensor_profile_shape(self, name: str, index: int) -> list[tuple[int, ...]]:
        return [(size, *SHAPE) for size in self.batch]

    def create_execution_context(self) -> "Context":
        return Context(self)

    def create_engine_inspector(self) -> Any:
        layer = {
            "Name": "fc",
            "LayerType": "CaskGemm",
            "Weights": {"Type": "Half"},
            "Inputs": [{"Name": "image", "Format/Datatype": "Half"}],
            "Outputs": [],
        }
        text = str([layer]).replace("'", '"')
        return SimpleNamespace(get_engine_information=lambda format_: f'{{"Layers": {text}, "Bindings": []}}')


class Context:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.addresses: dict[str, int] = {}
        self.n = 0

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.n = shape[0]
        return self.engine.batch[0] <= self.n <= self.engine.batch[2] and shape[1:] == SHAPE

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (self.n, CLASSES)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        ENQUEUED.append(self.n)
        self.compute()
        return True

    def compute(self) -> None:
        given = _floats(self.addresses["image"], self.n * int(np.prod(SHAPE)))
        _floats(self.addresses["logits"], self.n * CLASSES)[...] = logits(given.reshape(self.n, *SHAPE)).ravel()


class Builder:
    """Records what it was told; its engine has the batch range of the profile."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.num_DLA_cores = module.dla_cores

    def create_network(self, flags: int) -> Any:
        image = SimpleNamespace(name="image", shape=(-1, *SHAPE))
        return SimpleNamespace(flags=flags, num_inputs=1, num_outputs=1, get_input=lambda place: image)

    def create_builder_config(self) -> "Config":
        return Config()

    def create_optimization_profile(self) -> Any:
        profile = SimpleNamespace(shapes=())
        profile.set_shape = lambda name, *shapes: setattr(profile, "shapes", shapes)
        return profile

    def build_serialized_network(self, network: Any, config: "Config") -> "bytes | None":
        BUILT.append((network, config))
        config.progress_monitor.phase_start("Building", None, 2)
        on = [config.progress_monitor.step_complete("Building", step) for step in range(2)]
        config.progress_monitor.phase_finish("Building")
        return plan(self.module.__version__, tuple(shape[0] for shape in config.profile.shapes)) if all(on) else None


class Config:
    """An IBuilderConfig that remembers; timing caches of `other device` do not fit."""

    def __init__(self) -> None:
        self.flags: set[int] = set()
        self.cleared: set[int] = set()
        self.limits: dict[int, int] = {}

    def set_flag(self, flag: int) -> None:
        self.flags.add(flag)

    def clear_flag(self, flag: int) -> None:
        self.cleared.add(flag)

    def set_memory_pool_limit(self, pool: int, size: int) -> None:
        self.limits[pool] = size

    def add_optimization_profile(self, profile: Any) -> None:
        self.profile = profile

    def create_timing_cache(self, content: bytes) -> Any:
        return SimpleNamespace(content=content, serialize=lambda: content + b"+timed")

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        self.cache = cache
        return bool(cache.content != b"other device") and not ignore_mismatch

    def get_timing_cache(self) -> Any:
        return self.cache


def _floats(address: int, count: int) -> np.ndarray:
    return np.ctypeslib.as_array((ctypes.c_float * count).from_address(address))
