"""A TensorRT engine as a runner: page-locked buffers, one stream, a CUDA graph of the call where it can be captured."""

import itertools
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.core.artifact import Stage
from edge.core.errors import CompressError
from edge.core.progress import say
from edge.runtimes.runner import Runner
from edge.runtimes.tensorrt import engines, library, preflight, recipe
from edge.runtimes.tensorrt.cuda import Cuda
from edge.runtimes.tensorrt.engines import BuiltEngine
from edge.runtimes.tensorrt.library import Library

FLOAT_BYTES = 4
EVENTS = 4  # before and after each of: copy in, compute, copy out


class TensorRTRunner(Runner):
    """An engine that was held against this machine already (`preflight.check`), executed on its GPU."""

    def __init__(
        self, built: BuiltEngine, trt: Library, cuda: Cuda, *, where: str, batch_size: int, cuda_graph: bool = True
    ) -> None:
        self._where, self._built, self._trt, self._cuda = where, built, trt, cuda
        content, about = built.content, built.about
        started = time.perf_counter_ns()
        self._engine = _deserialized(content, about, trt, where)
        self._context = _context(self._engine, trt)
        if self._context is None:
            raise CompressError(
                f"{where}: no memory for its {self._engine.device_memory_size_v2 >> 20} MiB of activations "
                f"({trt.journal.reason()}); export it with a smaller --batch"
            )
        self.open_ms = (time.perf_counter_ns() - started) / 1e6
        self.file, self.size, self.sha256 = str(about["file"]), len(content), str(about["sha256"])
        self._input, self._output = _names(self._engine, trt, where)
        low, _, high = (next(iter(shape)) for shape in self._engine.get_tensor_profile_shape(self._input, 0))
        self.batch_size = batch_within(batch_size, low, high, where)
        self._prepare(cuda_graph)

    def describe(self) -> dict[str, Any]:
        """{"name", "version", "provider", "threads"} as of every runner, the device, CUDA and the engine's memory."""
        device = self._cuda.device()
        return {
            "name": self._trt.target,
            "version": self._trt.version,
            "provider": device.name,
            "threads": 1,
            "sm": device.sm,
            "cuda": {"driver": device.driver, "runtime": device.runtime},
            "cuda_graph": self._graph is not None,
            "device_memory_bytes": int(self._engine.device_memory_size_v2),
        }

    def origin(self) -> dict[str, Any]:
        """What the engine was built for and by, and whether on this machine out of a stage that has none."""
        return {"built": preflight.built_for(self._built.about), "here": self._built.here}

    def kept(self) -> dict[str, bytes]:
        if not self._built.here:
            return {}
        return {recipe.ENGINE: self._built.content, recipe.SIDECAR: recipe.sidecar_text(self._built.about).encode()}

    def again(self, batch_size: int) -> "TensorRTRunner":
        return _opened(self._built, self._trt, Cuda(), self._where, batch_size)

    def close(self) -> None:
        """Free the device memory; the engine goes with its last reference."""
        self._context = self._engine = None
        self._cuda.close()

    def timed_call(self, batch: "npt.NDArray[np.float32]") -> "tuple[npt.NDArray[np.float32], dict[str, float]]":
        """One call on float32 (batch_size,C,H,W): logits, and what its parts took by the GPU's clock.

        {"h2d_ms", "compute_ms", "d2h_ms"}: copy in, execution, copy out.
        """
        marks = self._marks
        self._host_in[...] = batch
        self._cuda.record(marks[0], self._stream)
        self._copy_in()
        self._cuda.record(marks[1], self._stream)
        self._compute()
        self._cuda.record(marks[2], self._stream)
        self._copy_out()
        self._cuda.record(marks[3], self._stream)
        self._cuda.synchronize(self._stream)
        parts = (self._cuda.elapsed_ms(start, end) for start, end in itertools.pairwise(marks))
        return self._host_out.copy(), dict(zip(("h2d_ms", "compute_ms", "d2h_ms"), parts, strict=True))

    def _call(self, batch: "npt.NDArray[np.float32]") -> "npt.NDArray[np.float32]":
        self._host_in[...] = batch
        self._copy_in()
        self._compute()
        self._copy_out()
        self._cuda.synchronize(self._stream)
        return self._host_out

    def _prepare(self, cuda_graph: bool) -> None:
        """Buffers for one batch, shapes and addresses set once, the call captured after it ran once."""
        _, *image = tuple(self._engine.get_tensor_shape(self._input))
        channels, height, width = image
        self.input_shape = (channels, height, width)
        if not self._context.set_input_shape(self._input, (self.batch_size, *image)):
            raise CompressError(f"{self._where}: refuses {self.batch_size} images ({self._trt.journal.reason()})")
        _, self.classes = tuple(self._context.get_tensor_shape(self._output))
        shapes = (self.batch_size, *image), (self.batch_size, self.classes)
        self._bytes_in, self._bytes_out = (int(np.prod(shape)) * FLOAT_BYTES for shape in shapes)
        (self._host_in, self._in), (self._host_out, self._out) = (self._cuda.pinned(shape) for shape in shapes)
        self._device_in, self._device_out = self._cuda.allocate(self._bytes_in), self._cuda.allocate(self._bytes_out)
        self._context.set_tensor_address(self._input, self._device_in)
        self._context.set_tensor_address(self._output, self._device_out)
        self._stream = self._cuda.stream()
        self._marks = [self._cuda.event() for _ in range(EVENTS)]
        self._graph: int | None = None
        self._host_in[...] = 0
        self._call(self._host_in)
        if cuda_graph:
            try:
                self._graph = self._cuda.capture(self._enqueue, self._stream)
            except CompressError as fault:
                say(f"{self._where}: its call cannot be captured as a CUDA graph ({fault}); executing without")

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._stream):
            raise CompressError(f"{self._where}: fails on the GPU ({self._trt.journal.reason()}); export it again")

    def _compute(self) -> None:
        if self._graph is None:
            self._enqueue()
        else:
            self._cuda.launch(self._graph, self._stream)

    def _copy_in(self) -> None:
        self._cuda.copy_in(self._device_in, self._in, self._bytes_in, self._stream)

    def _copy_out(self) -> None:
        self._cuda.copy_out(self._out, self._device_out, self._bytes_out, self._stream)


def open_stage(stage: Stage, *, batch_size: int, threads: int = 0, device: str = "cuda") -> TensorRTRunner:
    """The engine of an exported stage, built on this device where the stage defers it or its own does not fit."""
    cuda = Cuda()
    trt = library.load_library(str(stage.config["target"]))
    return _opened(engines.engine_of_stage(stage, trt, cuda.device()), trt, cuda, str(stage.path), batch_size)


def open_file(path: Path, *, batch_size: int) -> TensorRTRunner:
    """An engine file that lies beside its `engine.json`."""
    try:
        content, beside = path.read_bytes(), path.with_name(recipe.SIDECAR).read_bytes()
    except OSError as fault:
        raise CompressError(
            f"{path}: cannot be read with the {recipe.SIDECAR} beside it ({fault.strerror}); give the folder of an "
            f"exported stage"
        ) from None
    about = recipe.read_sidecar(beside, str(path.with_name(recipe.SIDECAR)))
    cuda = Cuda()
    trt = library.load_library(str(about["library"]["target"]))
    preflight.check_fits(content, about, trt, cuda.device(), str(path))
    return _opened(BuiltEngine(content, about, here=False), trt, cuda, str(path), batch_size)


def _opened(engine: BuiltEngine, trt: Library, cuda: Cuda, where: str, batch_size: int) -> TensorRTRunner:
    try:
        return TensorRTRunner(engine, trt, cuda, where=where, batch_size=batch_size)
    except BaseException:
        cuda.close()
        raise


def batch_within(wanted: int, low: int, high: int, where: str) -> int:
    """The batch size that the engine's range allows; one line where it is not the one asked for."""
    size = min(max(wanted, low), high)
    if size != wanted:
        say(f"{where}: built for {low} to {high} images a call, {wanted} asked for; taking {size}")
    return size


def _deserialized(content: bytes, about: Mapping[str, Any], trt: Library, where: str) -> Any:
    trt.journal.clear()
    runtime = trt.module.Runtime(trt.journal.listener)
    if about.get("version_compatible"):
        runtime.engine_host_code_allowed = True  # such an engine brings its own runtime; its hash was just checked
    if about.get("dla") is not None:
        runtime.DLA_core = about["dla"]
    engine = runtime.deserialize_cuda_engine(content)
    if engine is None:
        raise CompressError(
            f"{where}: {trt.name} does not load it ({trt.journal.reason()}); {preflight.built_for(about)}; "
            f"{preflight.ANEW}"
        )
    return engine


def _context(engine: Any, trt: Library) -> Any:
    """The state of one execution. Its kernels are final at the first call: logits must not change under way."""
    if not trt.specializes:
        return engine.create_execution_context()
    settings = engine.create_runtime_config()
    strategy = trt.module.DynamicShapesKernelSpecializationStrategy
    settings.dynamic_shapes_kernel_specialization_strategy = strategy.EAGER
    return engine.create_execution_context(settings)


def _names(engine: Any, trt: Library, where: str) -> tuple[str, str]:
    """The one input and the one output, both float32."""
    by_mode: dict[Any, list[str]] = {trt.module.TensorIOMode.INPUT: [], trt.module.TensorIOMode.OUTPUT: []}
    for place in range(engine.num_io_tensors):
        name = engine.get_tensor_name(place)
        by_mode[engine.get_tensor_mode(name)].append(name)
        if engine.get_tensor_dtype(name) != trt.module.DataType.FLOAT:
            raise CompressError(f"{where}: its tensor {name} is not float32; export it again")
    if [len(names) for names in by_mode.values()] != [1, 1]:
        raise CompressError(f"{where}: has inputs and outputs {list(by_mode.values())}; a classifier has one of each")
    (image,), (logits,) = by_mode.values()
    return image, logits
