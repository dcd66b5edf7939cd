"""From an ONNX graph and a recipe to an engine: strongly typed, so that the graph alone decides every precision."""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from edge.core import machine
from edge.core.errors import CompressError, first_line
from edge.core.progress import Progress, say
from edge.runtimes.tensorrt import layers
from edge.runtimes.tensorrt.cuda import Device
from edge.runtimes.tensorrt.library import Library
from edge.runtimes.tensorrt.recipe import Recipe, check_recipe

#: Of the memory that is free when a build starts, where the recipe names no limit.
WORKSPACE_SHARE = 0.5
WHOLE = 100
#: Where this much memory is left the build ends, before the system picks a process to kill.
LEAST_BYTES, SCARCE_BYTES = 96 << 20, 512 << 20


class Phases:
    """Nested phases of named steps as one share of the whole. Called from several threads of the builder."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._lock = threading.Lock()
        self._open: dict[str, tuple[str, int]] = {}  # phase → parent, steps
        self._done: dict[str, float] = {}
        self.interrupted = self.out_of_memory = self._warned = False

    def start(self, phase: str, parent: "str | None", steps: int) -> None:
        with self._lock:
            self._open[phase] = (parent or "", max(steps, 1))
            self._done[phase] = 0.0

    def step(self, phase: str, number: int) -> bool:
        """Step `number` of a phase is done; whether the build goes on."""
        with self._lock:
            if phase in self._open:
                self._done[phase] = max(self._done[phase], number + 1.0)
                self._show(phase)
            left = machine.memory_available()
            if left is not None and left < LEAST_BYTES:
                self.out_of_memory = True
            elif left is not None and left < SCARCE_BYTES and not self._warned:
                self._warned = True
                say(f"memory is short while the engine is built: {left >> 20} MiB left")
            return not (self.interrupted or self.out_of_memory)

    def finish(self, phase: str) -> None:
        with self._lock:
            if phase in self._open:
                self._done[phase] = float(self._open[phase][1])
                self._show(phase)
                del self._open[phase], self._done[phase]

    def _show(self, phase: str) -> None:
        share = min(self._share(name) for name, (parent, _) in self._open.items() if parent not in self._open)
        self._bar.step(max(0, int(WHOLE * share) - self._bar.done), note=phase)

    def _share(self, phase: str) -> float:
        """Its finished steps, and of the one that is running what its own phases have done."""
        _, steps = self._open[phase]
        inner = max((self._share(name) for name, (parent, _) in self._open.items() if parent == phase), default=0.0)
        return min(1.0, (self._done[phase] + min(inner, 0.99)) / steps)


def progress_monitor(module: Any, phases: Phases) -> Any:
    """The library's own progress monitor over `phases`; it must live as long as the build."""

    class Monitor(module.IProgressMonitor):
        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: "str | None", num_steps: int) -> None:
            phases.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return phases.step(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            phases.finish(phase_name)

    return Monitor()


@contextlib.contextmanager
def interruptible(phases: Phases) -> Iterator[None]:
    """Inside, Ctrl-C ends the build at its next step, and KeyboardInterrupt is raised at the end.

    Python would raise it inside a callback, where the library swallows it. Where something else listens to the signal
    (the command line leaves at once) or outside the main thread nothing is changed.
    """
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    def note(number: int, frame: Any) -> None:
        phases.interrupted = True

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if phases.interrupted:
        raise KeyboardInterrupt


@dataclass(frozen=True)
class Built:
    """An engine and what is known of it. `layers` as `layers.report` gives it, None where nothing told of them."""

    engine: bytes
    layers: "dict[str, Any] | None"
    timing_cache: bytes
    log: tuple[str, ...]
    seconds: float


def build_engine(
    content: bytes,
    recipe: Recipe,
    library: Library,
    *,
    device: "Device | None" = None,
    timing_cache: bytes = b"",
    origin: "Mapping[str, str] | None" = None,
    where: str = "model.onnx",
) -> Built:
    """Build the graph in `content`, for the GPU `device` of this machine or, with TensorRT-RTX, for those named.

    `timing_cache` of an earlier build on such a device makes this one quicker and more alike; it is returned, extended.
    `origin`: node name → layer, for messages. What the library refuses: CompressError. Ctrl-C ends the build.
    """
    check_recipe(recipe)
    journal = library.journal
    journal.clear()
    started = time.monotonic()
    try:
        builder = library.module.Builder(journal.listener)
    except TypeError:  # how the binding says that the library gave none
        raise CompressError(
            f"{library.name} cannot build here ({journal.reason()}); build on a machine with a GPU and its "
            f"driver: `compress export --deferred` leaves it to the device"
        ) from None
    network = builder.create_network(library.network_flags)
    _parse(library, network, content, origin or {}, where)
    config = builder.create_builder_config()
    with Progress("engine", WHOLE) as bar:
        phases = Phases(bar)
        config.progress_monitor = watch = progress_monitor(library.module, phases)
        _settings(library, builder, config, recipe, device)
        _profile(builder, network, config, recipe, where)
        timings = _timing_cache(library, config, timing_cache)
        with interruptible(phases):
            serialized = builder.build_serialized_network(network, config)
        if serialized is None:
            raise _failed(library, recipe, phases, where)
        bar.step(WHOLE - bar.done)
    del watch  # lived as long as the build
    engine = bytes(serialized)
    rows = _inspected(library, engine) if device is not None else []
    rows = rows or layers.of_listing(journal.listing)
    return Built(
        engine=engine,
        layers=layers.layer_report(rows, weighted=recipe.weighted, int8=recipe.int8) if rows else None,
        timing_cache=b"" if timings is None else bytes(timings.serialize()),
        log=(*journal.errors, *journal.warnings),
        seconds=time.monotonic() - started,
    )


def _parse(library: Library, network: Any, content: bytes, origin: Mapping[str, str], where: str) -> None:
    parser = library.module.OnnxParser(network, library.journal.listener)
    if parser.parse(content):
        return
    if not parser.num_errors:
        raise CompressError(f"{where}: {library.name} cannot read it ({library.journal.reason()}); export it again")
    refused = parser.get_error(0)
    node = refused.node_name()
    layer = f", of layer {origin[node]}" if node in origin else ""
    at = f"node {node} ({refused.node_operator()}){layer}" if node else "the graph"
    reason = first_line(" ".join(str(refused.desc()).split()), 300)
    raise CompressError(
        f"{where}: {library.name} cannot take {at}: {reason}; use a network "
        f"without it, or --opset 20 where the operator is newer than the library"
    )


def _settings(library: Library, builder: Any, config: Any, recipe: Recipe, device: "Device | None") -> None:
    trt = library.module
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.builder_optimization_level = recipe.optimization_level
    config.clear_flag(trt.BuilderFlag.TF32)  # float32 is said to be IEEE single precision
    workspace = _workspace(recipe, device)
    if workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace)
    if recipe.hardware_compatibility != "none":
        levels = library.hardware_levels
        if recipe.hardware_compatibility not in levels:
            has = f"knows {' and '.join(levels)}" if levels else "builds for the compute capabilities that are named"
            raise CompressError(
                f"hardware compatibility {recipe.hardware_compatibility!r}: {library.name} {has}; choose another"
            )
        config.hardware_compatibility_level = levels[recipe.hardware_compatibility]
    if recipe.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if recipe.dla is not None:  # all that it takes runs on the DLA, the rest on the GPU
        cores = builder.num_DLA_cores
        if not cores:
            raise CompressError(f"dla {recipe.dla}: {library.without_dla()}; leave --dla out")
        if recipe.dla >= cores:
            raise CompressError(f"dla {recipe.dla}: this device has {cores} cores, 0 to {cores - 1}")
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = recipe.dla
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
    known = library.compute_capabilities
    unknown = [name for name in recipe.compute_capabilities if name not in known]
    if unknown:
        has = f"knows {', '.join(known)}" if known else "builds for the GPU of this machine alone"
        raise CompressError(f"compute capability {unknown[0]}: {library.name} {has}; choose another")
    if library.ahead_of_time:
        chosen = library.capabilities(recipe.compute_capabilities)
        config.num_compute_capabilities = len(chosen)
        for place, name in enumerate(chosen):
            config.set_compute_capability(known[name], place)


def _workspace(recipe: Recipe, device: "Device | None") -> "int | None":
    """Bytes of scratch memory. Without a limit the library takes what it finds, on a board all that there is."""
    if recipe.workspace_mib is not None:
        return recipe.workspace_mib << 20
    if device is None:
        return None
    free = device.free_bytes
    if device.integrated:
        free = min(free, machine.memory_available() or free)
    return int(free * WORKSPACE_SHARE)


def _profile(builder: Any, network: Any, config: Any, recipe: Recipe, where: str) -> None:
    """One range of batch sizes; a graph of a fixed size has its own."""
    if network.num_inputs != 1 or network.num_outputs != 1:
        raise CompressError(
            f"{where}: has {network.num_inputs} inputs and {network.num_outputs} outputs; a classifier has one of each"
        )
    tensor = network.get_input(0)
    fixed, *image = tuple(tensor.shape)
    if fixed != -1 and set(recipe.batch) != {fixed}:
        raise CompressError(f"{where}: takes {fixed} images a call, always; give --batch {fixed}:{fixed}:{fixed}")
    profile = builder.create_optimization_profile()
    profile.set_shape(tensor.name, *((size, *image) for size in recipe.batch))
    config.add_optimization_profile(profile)


def _timing_cache(library: Library, config: Any, content: bytes) -> Any:
    """The cache of kernel timings in use; None where the library times nothing. One of another device is set aside."""
    if library.ahead_of_time:
        return None
    timings = config.create_timing_cache(content)
    if timings is None or not config.set_timing_cache(timings, False):
        if content:
            say(f"the timing cache is of another device or version ({library.journal.reason()}); starting an empty one")
        timings = config.create_timing_cache(b"")
        config.set_timing_cache(timings, False)
    return timings


def _failed(library: Library, recipe: Recipe, phases: Phases, where: str) -> CompressError:
    reason = library.journal.reason()
    # the library has no code for it: that memory ran out is told by its log alone
    if phases.out_of_memory or "memory" in reason.lower():
        why = "memory ran out" if phases.out_of_memory else reason
        return CompressError(
            f"{where}: no engine was built, {why}; end other programs, give a smaller --workspace MIB, or a smaller "
            f"--batch than {':'.join(map(str, recipe.batch))}"
        )
    return CompressError(f"{where}: {library.name} built no engine: {reason}")


def _inspected(library: Library, engine: bytes) -> list[layers.Row]:
    """The engine's own description, where this machine can load it."""
    trt = library.module
    runtime = trt.Runtime(library.journal.listener)
    loaded = runtime.deserialize_cuda_engine(engine)
    if loaded is None:
        return []
    inspector = loaded.create_engine_inspector()
    return layers.of_inspector(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
