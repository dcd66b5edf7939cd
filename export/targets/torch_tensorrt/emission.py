"""The targets torch-tensorrt and torch-tensorrt-rtx: a program of TensorRT engines for a process that has torch."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from compress.config import ExportConfig
from compress.data.dataset import Dataset
from compress.networks.base import count_parameters
from compress.quantization.graph_network import GraphNetwork
from edge.core import artifact
from edge.core.artifact import Stage, Work
from edge.core.errors import CompressError, first_line
from edge.core.progress import say
from edge.core.targets import Target
from edge.runtimes.runner import MODEL
from export import parity
from export.contract import Emission
from export.targets.onnx import graph
from export.targets.torch_tensorrt import program_runner, versions
from export.targets.torch_tensorrt.preparation import example_batch, export_program, kernels, prepare_network, quiet
from export.targets.torch_tensorrt.program_runner import TorchTensorRTRunner

#: How a program is stored → the file's name and Torch-TensorRT's name of the format.
PROGRAMS = {"ep": ("program.ep", "exported_program"), "aoti": ("program.pt2", "aot_inductor")}
#: What Torch-TensorRT's compiler cannot be told, the value that asks for nothing, and what to do instead.
UNKNOWN_HERE: dict[str, tuple[Any, str]] = {
    "dla": (None, "programs run on the GPU; use --target tensorrt for a DLA core"),
    "compute_capabilities": ([], "programs are built for the GPU that is here; use --target tensorrt-rtx"),
    "rebuilds": (1, "one program is built; use --target tensorrt"),
    "deferred": (False, "a program is built where it is exported; use --target tensorrt"),
}


def emit_program(target: Target, work: Work, source: Stage, dataset: Dataset, config: ExportConfig) -> Emission:
    """The program of a teacher, student or quantized stage, run on real images.

    `model.onnx` beside it is the same network in TensorRT's dialect, from which twins are made.
    """
    _known(config)
    library = program_runner.load_torch_tensorrt(config.target)
    if graph.chosen_precision(source, target, config.precision) == "int8":
        versions.check_int8(config.target)
    emitted = graph.emit_graph(source, target, precision=config.precision, opset=config.opset)
    images = dataset.part("val")[0][: config.parity_images]
    parity.check_overflow(emitted, images)
    artifact.write_atomic(work.add_payload(MODEL), emitted.proto.SerializeToString(deterministic=True))

    channels, height, width = images.shape[1:]
    image, batch = (channels, height, width), (config.batch.min, config.batch.max)
    prepared = prepare_network(emitted.twin, emitted.floats, image).to(program_runner.DEVICE)
    program = export_program(prepared, image, batch)
    compiled = compiled_program(library, program, image, emitted.floats, config, work.file("timing.cache"))
    left = in_torch(compiled, program, prepared)
    if left:
        say(f"{len(left)} operators stay in torch: {', '.join(left[:5])}{', …' if len(left) > 5 else ''}")
    name, form = PROGRAMS[config.engine.program]
    file = work.add_payload(name)
    save_program(library, compiled, file, form, image, batch)
    del compiled, program
    torch.cuda.empty_cache()

    def within(batch_size: int) -> int:
        return min(max(batch_size, config.batch.min), config.batch.max)

    def answers(x: np.ndarray, batch_size: int) -> np.ndarray:
        with TorchTensorRTRunner(
            file.read_bytes(),
            where=str(file),
            file=file.name,
            target=config.target,
            program=config.engine.program,
            batch_size=within(batch_size),
            input_shape=image,
            classes=len(dataset.classes),
        ) as runner:
            return runner.infer(x)

    held = parity.hold_parity(emitted.twin, emitted.precision, answers, images, config)
    metrics = {
        "bytes": file.stat().st_size,
        "precision": emitted.precision,
        "parameters": count_parameters(emitted.twin),
        "program": config.engine.program,
        "in_torch": left,
        "device": torch.cuda.get_device_name(),
        "executed": True,
        "parity": held.as_metrics() | {"batch_sizes": [within(size) for size in held.batch_sizes]},
    }
    return Emission(metrics, name, target.runtime)


def _known(config: ExportConfig) -> None:
    for key, (nothing, instead) in UNKNOWN_HERE.items():
        value = getattr(config.engine, key)
        if value != nothing:
            raise CompressError(f"engine.{key} {value!r} cannot be asked of {config.target}: {instead}")
    if config.engine.hardware_compatibility == "same-compute-capability":
        raise CompressError(
            f"engine.hardware_compatibility same-compute-capability cannot be asked of {config.target}; "
            f"give none or ampere+"
        )


def compiled_program(
    library: Any,
    program: torch.export.ExportedProgram,
    image: tuple[int, ...],
    floats: str,
    config: ExportConfig,
    timing_cache: Path,
) -> fx.GraphModule:
    """The program with its convertible parts as engines, strongly typed. Images (C,H,W), `config.batch` of them."""
    batch, engine = config.batch, config.engine
    shapes = {f"{kind}_shape": (getattr(batch, kind), *image) for kind in ("min", "opt", "max")}
    fixed = batch.min == batch.max
    entry = (
        library.Input(shape=shapes["max_shape"], dtype=torch.float32)
        if fixed
        else library.Input(**shapes, dtype=torch.float32)
    )
    options: dict[str, Any] = {
        "min_block_size": 1,
        "disable_tf32": floats == "float32",
        "workspace_size": (engine.workspace_mib or 0) << 20,
        "version_compatible": engine.version_compatible,
        "hardware_compatible": engine.hardware_compatibility == "ampere+",
        "timing_cache_path": engine.timing_cache or str(timing_cache),
    }
    if config.target == "torch-tensorrt":
        options["optimization_level"] = engine.optimization_level
    if "use_explicit_typing" in inspect.signature(library.dynamo.compile).parameters:
        options["use_explicit_typing"] = True  # a choice until 2.12, the only way since
    with program_runner.complaints() as faults:
        try:
            with kernels():
                compiled: fx.GraphModule = library.dynamo.compile(program, arg_inputs=[entry], **options)
        except torch.OutOfMemoryError:
            free, total = (amount >> 20 for amount in torch.cuda.mem_get_info())
            raise CompressError(
                f"{config.target}: the GPU's memory does not suffice to build it ({free:,} of {total:,} MiB free); "
                f"stop what else uses it, or lower batch.max ({config.batch.max})"
            ) from None
        except Exception as fault:  # converters and builder raise what they like
            reason = first_line(faults[0] if faults else fault)
            raise CompressError(
                f"{config.target} cannot build this network ({reason}); use --target tensorrt"
            ) from None
    return compiled


def in_torch(compiled: fx.GraphModule, program: torch.export.ExportedProgram, prepared: nn.Module) -> list[str]:
    """What did not become part of an engine of the `prepared` network: `layer: operator` each, as executed."""
    graph_network = next(module for module in prepared.modules() if isinstance(module, GraphNetwork))
    layers = {}
    for node in program.graph.nodes:
        # the module whose forward made a node, as `named_modules` calls it; a function is of the graph itself
        stack = list(node.meta.get("nn_module_stack", {}).values())
        layer = str(stack[-1][0]).removeprefix("network").removeprefix(".") if stack else ""
        layers[node.name] = layer or graph_network.module_at(node.meta.get("stack_trace") or "")
    left = []
    for node in _torch_nodes(compiled):
        # the name that a node, or what it was decomposed from, has in the program
        name, sources = node.name, node.meta.get("from_node", [])
        while sources:
            name, sources = sources[-1].name, sources[-1].from_node
        assert isinstance(node.target, torch._ops.OpOverload)
        operator = node.target._schema.name.removeprefix("aten::")  # `conv2d`, `prims::var`
        left.append(f"{layers.get(name) or node.name}: {operator}")
    return left


def _torch_nodes(module: fx.GraphModule) -> Iterator[fx.Node]:
    for node in module.graph.nodes:
        child = getattr(module, str(node.target), None) if node.op == "call_module" else None
        if isinstance(child, fx.GraphModule):
            yield from _torch_nodes(child)
        elif node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload):
            yield node


def save_program(
    library: Any, compiled: fx.GraphModule, file: Path, form: str, image: tuple[int, ...], batch: tuple[int, int]
) -> None:
    """Write the program, any batch within `batch`, in one of Torch-TensorRT's formats."""
    example, shapes = example_batch(image, batch, program_runner.DEVICE)
    stored = file.with_suffix(".pt2")  # the only ending that both formats take without a warning
    try:
        with quiet():
            library.save(compiled, str(stored), output_format=form, arg_inputs=[example], dynamic_shapes=shapes)
    except Exception as fault:  # the exporter and the compiler behind it raise what they like
        reason = first_line(fault)
        raise CompressError(
            f"{file.name}: the program cannot be stored ({reason}); give the other kind by --set engine.program=ep|aoti"
        ) from None
    stored.rename(file)
