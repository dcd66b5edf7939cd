"""The targets tensorrt and tensorrt-rtx: the graph, how its engine is built, the engine where it can be.

Without a GPU, or without the library, the stage is *deferred*: whoever runs it first builds the engine on that device
from model.onnx and recipe.json, and pins it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from compress.config import ExportConfig
from compress.data.dataset import Dataset
from compress.networks.base import count_parameters
from edge.core import artifact
from edge.core.artifact import Stage, Work
from edge.core.errors import CompressError
from edge.core.progress import say
from edge.core.targets import Target
from edge.runtimes.runner import MODEL
from edge.runtimes.tensorrt import build, cuda, engines, layers, library, preflight, recipe
from edge.runtimes.tensorrt.build import Built
from edge.runtimes.tensorrt.cuda import Cuda, Device
from edge.runtimes.tensorrt.engines import BuiltEngine
from edge.runtimes.tensorrt.library import Library
from edge.runtimes.tensorrt.recipe import Recipe
from edge.runtimes.tensorrt.runner import TensorRTRunner
from export import parity
from export.contract import Emission
from export.targets.onnx import graph
from export.targets.onnx.graph import EmittedGraph

#: Operators that multiply by weights.
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
#: TensorRT-RTX lists INT8 for weights of matrix products alone; that a convolution builds says nothing of its speed.
UNVERIFIED = "builds; INT8 execution unverified"


@dataclass(frozen=True)
class Here:
    """What this machine has to build with; `why_not` says what is missing where `library` is None."""

    library: "Library | None"
    device: "Device | None"
    why_not: str = ""


def emit_tensorrt(target: Target, work: Work, source: Stage, dataset: Dataset, config: ExportConfig) -> Emission:
    """Of TensorRT, which builds for the GPU that it finds."""
    return emit_engine(target, work, source, dataset, config, needs_gpu=True)


def emit_tensorrt_rtx(target: Target, work: Work, source: Stage, dataset: Dataset, config: ExportConfig) -> Emission:
    """Of TensorRT-RTX: for desktop GPUs, ahead of time on a machine that may have none."""
    return emit_engine(target, work, source, dataset, config, needs_gpu=False, int8_status=UNVERIFIED)


def emit_engine(
    target: Target,
    work: Work,
    source: Stage,
    dataset: Dataset,
    config: ExportConfig,
    *,
    needs_gpu: bool,
    int8_status: "str | None" = None,
) -> Emission:
    """model.onnx, recipe.json and, where it can be built here, engine.plan with its sidecars.

    The graph is held against the torch model through ONNX Runtime, and so is an engine that a GPU here executes.
    `needs_gpu`: to build. `int8_status`: what is to be said of every INT8 engine that was built and not executed.
    """
    emitted = graph.emit_graph(source, target, precision=config.precision, opset=config.opset)
    content = emitted.proto.SerializeToString(deterministic=True)
    weighted, int8 = nodes(emitted.proto)
    section = config.model_dump(mode="json")
    build_recipe = recipe.recipe_of(
        config.target, emitted.precision, section["batch"], section["engine"], weighted=weighted, int8=int8
    )
    recipe.check_recipe(build_recipe)
    here = _here(config, needs_gpu)
    file = work.add_payload(MODEL)
    artifact.write_atomic(file, content)
    artifact.write_atomic(work.add_payload(recipe.RECIPE), build_recipe.text())
    held = parity.measure_parity(emitted, file, dataset, config)
    metrics = {
        "bytes": len(content),
        "precision": emitted.precision,
        "parameters": count_parameters(emitted.twin),
        "parity": held["parity"],
        "graph_executed": held["executed"],
        "executed": False,
        "engine": "deferred",
    }
    if here.library is None:
        say(f"no engine is built here: {here.why_not}; it is deferred to the device, `compress verify` builds it there")
        return Emission(metrics, MODEL, target.runtime)
    metrics |= _engine(work, emitted, content, build_recipe, here, dataset, config)
    if int8_status is not None and build_recipe.precision == "int8":
        metrics["status"] = int8_status
    return Emission(metrics, recipe.ENGINE, target.runtime)


def _engine(
    work: Work,
    emitted: EmittedGraph,
    content: bytes,
    build_recipe: Recipe,
    here: Here,
    dataset: Dataset,
    config: ExportConfig,
) -> dict[str, Any]:
    """Build it as often as asked, keep the first, compare the others with it; what is said of it."""
    assert here.library is not None
    timings = None if config.engine.timing_cache is None else Path(config.engine.timing_cache)
    known = b"" if timings is None else engines.read_timings(timings)
    builds = [
        build.build_engine(
            content,
            build_recipe,
            here.library,
            device=here.device,
            timing_cache=known,
            origin=emitted.modules,
            where=MODEL,
        )
        for _ in range(build_recipe.rebuilds)
    ]
    first = builds[0]
    if timings is not None:
        engines.extend_timings(timings, first.timing_cache)
    about = recipe.sidecar_of(first.engine, content, build_recipe, here.library, here.device)
    engines.keep_built(work, first, about)
    summary: dict[str, Any] | None = None
    if first.layers is None:
        say("the library told nothing of the engine's layers")
    else:
        for line in layers.layer_lines(first.layers, build_recipe.int8):
            say(line)
        summary = {key: first.layers[key] for key in ("precisions", "not_int8", "unseen")}
        summary["apart"] = len(first.layers["apart"])
    metrics: dict[str, Any] = {
        "bytes": len(first.engine),
        "engine": "built",
        "engine_sha256": about["sha256"],
        "library": here.library.name,
        "built_for": preflight.built_for(about).removeprefix("built for "),
        "build_seconds": round(first.seconds, 2),
        "layers": summary,
    }
    images = dataset.part("val")[0][: config.parity_images]
    executed = _executed(builds, about, emitted, here, images, config)
    if executed:
        metrics |= {"executed": True, "engine_parity": executed[0]}
    if len(builds) > 1:
        metrics["rebuilds"] = _spread(builds, executed[1] if executed else None)
    return metrics


def _here(config: ExportConfig, needs_gpu: bool) -> Here:
    """The library and the GPU."""
    if config.engine.deferred:
        return Here(None, None, "deferred was asked for")
    device = cuda.cuda_device()
    if needs_gpu and device is None:
        return Here(None, None, "TensorRT builds for the GPU that it finds, and there is none")
    try:
        return Here(library.load_library(config.target), device)
    except CompressError as fault:
        return Here(None, None, str(fault))


def nodes(proto: onnx.ModelProto) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the nodes that multiply by weights, and of those whose operands both come out of 8-bit integers."""
    made_by = {output: node for node in proto.graph.node for output in node.output}
    constants = {entry.name for entry in proto.graph.initializer}
    for node in proto.graph.node:  # a product of two activations, as in attention, has no weights
        if node.op_type == "Constant" or (node.input and constants.issuperset(filter(None, node.input))):
            constants.update(node.output)

    def origin(tensor: str) -> "onnx.NodeProto | None":
        """The node behind a tensor, casts and transpositions passed over."""
        node = made_by.get(tensor)
        return origin(node.input[0]) if node is not None and node.op_type in ("Cast", "Transpose") else node

    weighted = [node for node in proto.graph.node if node.op_type in WEIGHTED and node.input[1] in constants]
    behind = {node.name: [origin(tensor) for tensor in node.input[:2]] for node in weighted}
    int8 = [
        name
        for name, both in behind.items()
        if all(node is not None and node.op_type == "DequantizeLinear" for node in both)
    ]
    return tuple(node.name for node in weighted), tuple(int8)


def _executed(
    builds: list[Built],
    about: dict[str, Any],
    emitted: EmittedGraph,
    here: Here,
    images: np.ndarray,
    config: ExportConfig,
) -> "tuple[dict[str, Any], list[np.ndarray]] | None":
    """The first engine's parity and every build's logits on `images`, where this machine's GPU executes them."""
    if here.library is None or here.device is None:
        return None
    if here.library.ahead_of_time and here.device.sm not in about["compute_capabilities"]:
        return None
    trt = here.library

    def answers(engine: bytes, images: np.ndarray, batch_size: int) -> np.ndarray:
        own = about | {"sha256": artifact.bytes_sha256(engine), "bytes": len(engine)}
        opened = BuiltEngine(engine, own, here=False)
        with TensorRTRunner(opened, trt, Cuda(), where=recipe.ENGINE, batch_size=batch_size) as runner:
            return runner.infer(images)

    first = parity.hold_parity(
        emitted.twin, emitted.precision, lambda part, size: answers(builds[0].engine, part, size), images, config
    )
    return first.as_metrics(), [answers(built.engine, images, config.batch.opt) for built in builds]


def _spread(builds: list[Built], logits: "list[np.ndarray] | None") -> dict[str, Any]:
    """How far builds of one graph differ: in their bytes and, where they were executed, in their logits."""
    first = builds[0].engine
    spread: dict[str, Any] = {
        "n": len(builds),
        "identical_bytes": sum(built.engine == first for built in builds) / len(builds),
        "max_abs": None,
        "argmax_agreement": None,
    }
    if logits is not None:
        stacked = np.stack(logits)
        spread["max_abs"] = float((stacked.max(0) - stacked.min(0)).max())
        spread["argmax_agreement"] = float((stacked.argmax(2) == stacked[0].argmax(1)).all(0).mean())
    say(
        f"{spread['n']} builds: {spread['identical_bytes']:.0%} have the first one's bytes; "
        + (
            "their logits were not compared, no GPU executes them here"
            if logits is None
            else f"logits differ by up to {spread['max_abs']:.3g}, "
            f"predictions agree on {spread['argmax_agreement']:.1%}"
        )
    )
    return spread
