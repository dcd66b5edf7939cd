"""`selftest`: whether this machine's runtime computes what it should, and what the machine tells of itself.

A small reference network through TensorRT where it is installed, else through ONNX Runtime; the answers beside those of
numpy. One JSON object, to be sent around: it holds versions, clocks and figures, no names.

The network is quantized as TensorRT wants it, and computed here by numpy alone: images 3×8×8 in [0, 1] → S8 →
convolution 3×3 → ReLU → S8 → convolution 3×3, added to what it began with → ReLU → S8 → mean over the image → S8 → 10
logits. Weights are S8 per output channel, biases float, zero points 0. All of it follows from formulas, so that neither
side copies from the other; `network.onnx` beside this file is the same network, written by
`export/reference_network.py`.
"""

import tempfile
import time
from collections.abc import Iterator, Mapping
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge import __version__, evidence
from edge.core import machine
from edge.core.errors import CompressError
from edge.runtimes.runner import Runner

BATCH, LARGEST = 4, 8
TIMED = 200
WATCHED_S = 1.0
LEAST_HZ = 10.0

Row = dict[str, Any]  # {"name", "passed", "found"}; passed is None where there was nothing to test


def run_selftest() -> dict[str, Any]:
    """{"passed", "version", "runtime", "checks", "latency", "machine", "seconds"}."""
    began = time.monotonic()
    rows: list[Row] = []
    runtime: dict[str, Any] | None = None
    latency: dict[str, Any] | None = None
    with tempfile.TemporaryDirectory(prefix="selftest-") as scratch:
        try:
            with _open(Path(scratch), BATCH) as runner:
                runtime = runner.describe()
                rows += [_computes_at(runner), *_answers_alike(runner), *_graph(runner)]
                latency = _timed(runner)
            with _open(Path(scratch), LARGEST) as other:
                rows.append(_computes_at(other))
        except CompressError as fault:
            rows.append(_row("runtime", False, str(fault)))
    state = evidence.snapshot()
    # What could be read of the machine; nothing of it is a failure, it is listed
    readings = {"kind": state["kind"], "unreadable": len(state["unreadable"])}
    rows += [_row("evidence", bool(state.get("kernel")), readings), _watched()]
    return {
        "passed": all(row["passed"] is not False for row in rows),
        "version": __version__,
        "runtime": runtime,
        "checks": rows,
        "latency": latency,
        "machine": state,
        "seconds": round(time.monotonic() - began, 1),
    }


def _row(name: str, passed: "bool | None", found: Any) -> Row:
    return {"name": name, "passed": passed, "found": found}


def _open(scratch: Path, batch_size: int) -> Runner:
    """The reference network, opened by the board's own runtime."""
    content = resources.files("edge.board").joinpath(NETWORK).read_bytes()
    from edge.runtimes.onnxruntime.runner import OnnxRunner
    from edge.runtimes.tensorrt.library import MODULES, TENSORRT

    if find_spec(MODULES[TENSORRT]) is not None:
        # Built by the board's TensorRT, once for both batch sizes
        from edge.runtimes.tensorrt import engines, library
        from edge.runtimes.tensorrt.cuda import Cuda
        from edge.runtimes.tensorrt.recipe import Recipe
        from edge.runtimes.tensorrt.runner import TensorRTRunner

        how = Recipe(library.TENSORRT, "int8", (1, BATCH, LARGEST), None, 3, "none", False, None, (), 1)
        trt, cuda = library.load_library(), Cuda()
        try:
            built = engines.ready_engine(content, how, trt, cuda.device(), where="selftest", cache=scratch)
            return TensorRTRunner(built, trt, cuda, where="selftest", batch_size=batch_size)
        except BaseException:
            cuda.close()
            raise

    return OnnxRunner(content, where="selftest", batch_size=batch_size, threads=machine.usable_cores())


# ------------------------------------------------------------------------------------------- what it computes


def _computes_at(runner: Runner) -> Row:
    """Logits against numpy's; predictions where numpy's margin is larger than what rounding may do."""
    x = reference_images()
    want, got = reference_logits(x), runner.infer(x)
    scale, gap = float(np.abs(want).max()), float(np.abs(want - got).max())
    two = np.sort(want, 1)[:, -2:]
    clear = two[:, 1] - two[:, 0] > 2 * TOLERANCE * scale
    agree = want.argmax(1) == got.argmax(1)
    evidence = {"max_abs": gap, "scale": scale, "tolerance": TOLERANCE, "agree": int(agree.sum()), "n": len(x)}
    passed = gap <= TOLERANCE * scale and bool(agree[clear].all())
    return _row(f"golden logits at batch {runner.batch_size}", passed, evidence)


def _answers_alike(runner: Runner) -> Iterator[Row]:
    """The same question in another form has the same answer: asked twice, in an incomplete batch, as floats."""
    x, size = reference_images(), runner.batch_size
    same = bool((runner.infer(x) == runner.infer(x)).all())
    yield _row("the same answer twice", same, None if same else "logits of the same images differ between two passes")
    # an incomplete batch is padded, and what pads it changes nothing
    rest, whole = runner.infer(x[size : size + size // 2 + 1]), runner.infer(x[size : 2 * size])
    same = bool((rest == whole[: len(rest)]).all())
    yield _row("padding", same, None if same else "an incomplete batch gives other logits than a complete one")
    x = reference_images(size)
    same = bool((runner.infer(x) == runner.infer(x.astype(np.float32) / np.float32(255))).all())
    yield _row("uint8 and float32 alike", same, None if same else "the same pixels as uint8 and as float32 differ")


def _graph(runner: Runner) -> Iterator[Row]:
    """Of an engine: whether its call is replayed as a CUDA graph, and what its parts take."""
    if not hasattr(runner, "timed_call"):
        yield _row("CUDA graph", None, "no engine: ONNX Runtime executed")
        return
    x = reference_images(runner.batch_size).astype(np.float32) / np.float32(255)
    logits, parts = runner.timed_call(x)
    same = bool((logits == runner.infer(x)).all())
    yield _row("CUDA graph", runner.describe()["cuda_graph"] and same, parts)


def _timed(runner: Runner) -> dict[str, Any]:
    """Median and spread of single queries: that the clock works, no benchmark."""
    x = reference_images(runner.batch_size)
    taken = np.empty(TIMED)
    for i in range(TIMED):
        started = time.perf_counter_ns()
        runner.infer(x)
        taken[i] = (time.perf_counter_ns() - started) / 1e6
    middle, high = np.percentile(taken, (50, 99))
    return {"batch_size": runner.batch_size, "n": TIMED, "p50_ms": float(middle), "p99_ms": float(high)}


# ------------------------------------------------------------------------------------------- what it tells


def _watched() -> Row:
    """The sampling process: how often it samples, and what."""
    with evidence.Sampler() as sampler:
        time.sleep(WATCHED_S)
    times = sampler.samples.times_ns
    if len(times) < 2:
        return _row("sampling", False, sampler.samples.about.get("fault", "no samples"))
    hertz = (len(times) - 1) / (float(times[-1] - times[0]) / 1e9)
    return _row("sampling", hertz >= LEAST_HZ, {"hz": hertz, "channels": sampler.channels})


# ----------------------------------------------------------------------------------------------- the reference network


NETWORK = "network.onnx"
INPUT_SHAPE, WIDTH, CLASSES = (3, 8, 8), 8, 10
IMAGES = 16
#: Of the largest logit: how far a runtime may be off, where a rounding may go the other way in each layer.
TOLERANCE = 0.03

Array = npt.NDArray[Any]

SCALES: Mapping[str, float] = {"image": 1 / 127, "first": 1 / 32, "second": 1 / 16, "mean": 1 / 64}


def reference_weights(name: str) -> tuple[Array, Array, Array]:
    """`first`, `second` or `last`: int8 weights (K,C,3,3) or (K,C), float32 scales (K,), float32 biases (K,)."""
    shape = {"first": (WIDTH, 3, 3, 3), "second": (WIDTH, WIDTH, 3, 3), "last": (CLASSES, WIDTH)}[name]
    start = {"first": 11, "second": 5, "last": 8}[name]
    count = int(np.prod(shape))
    spread = (np.arange(count, dtype=np.int64) * 7919 + start) % 127 - 63  # 7919 is prime: no row like another
    scale = (1 + np.arange(shape[0]) % 3).astype(np.float32) / np.float32(32 if name == "last" else 256)
    bias = ((np.arange(shape[0]) * 5 % 7) - 3).astype(np.float32) / np.float32(16)
    return spread.reshape(shape).astype(np.int8), scale, bias


def reference_images(count: int = IMAGES) -> Array:
    """uint8 (count,3,8,8), each with brightness and stripes of its own."""
    n, c, i, j = np.ogrid[:count, :3, :8, :8]
    level = (n * 67 + c * (41 + 29 * n)) % 192
    stripes = (i * (n % 5) + j * (n % 3 + c)) * 16 % 64
    return (level + stripes).astype(np.uint8)


def reference_logits(x: Array) -> Array:
    """Of uint8 images (N,3,8,8): float64 (N,10), every quantization as ONNX defines it, halves to even."""
    image = _on_grid(x / 255, "image")
    first = _on_grid(np.maximum(_convolution(image, "first"), 0), "first")
    second = _on_grid(np.maximum(_convolution(first, "second") + first, 0), "second")
    mean = _on_grid(second.mean((2, 3)), "mean")
    kernel, scale, bias = reference_weights("last")
    return np.asarray(mean @ (kernel * scale[:, None].astype(np.float64)).T + bias)


def _on_grid(x: Array, name: str) -> Array:
    return np.asarray(np.clip(np.rint(x / SCALES[name]), -128, 127) * SCALES[name])


def _convolution(x: Array, name: str) -> Array:
    """3×3, one zero around the image."""
    kernel, scale, bias = reference_weights(name)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))  # (N,C,8,8,3,3)
    full = kernel.astype(np.float64) * scale[:, None, None, None]
    return np.asarray(np.einsum("nchwij,kcij->nkhw", windows, full) + bias[:, None, None])
