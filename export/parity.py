"""Does the exported file say what the torch model says? On real validation images, at several batch sizes.

And whether every tensor stays within half precision's range on them, before anything is kept.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from compress.config import ExportConfig
from compress.data.dataset import Dataset
from compress.data.split import to_float
from compress.networks.base import Classifier
from compress.networks.graph import onnx_twin
from edge import open_runner
from edge.core import targets
from edge.core.errors import CheckFailed, CompressError
from edge.core.progress import say
from edge.core.proportions import clopper_pearson
from export.targets.onnx.graph import EmittedGraph

BATCH_SIZES = (1, 64)
AT_ONCE = 32  # images in one pass of torch: more take more memory and no less time
#: Largest difference of logits, relative to the largest logit. Float kernels differ by summation order, half ones by
#: rounding as well; INT8 is judged by its predictions, as one rounding more or less is a step of the grid.
TOLERANCE = {"float32": 1e-3, "fp16": 2e-2, "bf16": 1e-1, "int8": None}

#: uint8 images (N,C,H,W) and a batch size → logits (N,K).
Answers = Callable[[np.ndarray, int], np.ndarray]


@dataclass(frozen=True)
class Parity:
    """Largest difference of logits and share of equal predictions, over all batch sizes; true when both suffice.

    The share suffices while these images leave it open (95 % interval) whether it is `min_agreement` on all images.
    """

    passed: bool
    n: int
    batch_sizes: tuple[int, ...]
    max_abs: float
    scale: float  # largest logit of the torch model
    argmax_agreement: float

    def __bool__(self) -> bool:
        return self.passed

    def as_metrics(self) -> dict[str, Any]:
        return asdict(self)


def measure_parity(graph: EmittedGraph, file: Path, dataset: Dataset, config: ExportConfig) -> dict[str, Any]:
    """Hold an ONNX file with this graph against its twin; the manifest's `executed` and `parity`.

    Half precision that overflows on these images is refused first. `executed`: ONNX Runtime executes the file as it
    is meant to be. What is for another runtime it computes operator by operator; where it has no kernels (BF16 on
    processors) torch does.
    """
    images = dataset.part("val")[0][: config.parity_images]
    check_overflow(graph, images)
    executed = graph.target.opener == targets.DEFAULT.opener and (graph.precision != "bf16" or _opens(file))
    if executed:
        answers = through_onnx_runtime(file)
    elif graph.floats == "bf16":
        answers = through_torch(file)
        say("bf16: ONNX Runtime has no kernels for it here; held against torch operator by operator, not executed")
    else:
        answers = as_written(file)
    held = hold_parity(graph.twin, graph.precision, answers, images, config)
    return {"executed": executed, "parity": held.as_metrics()}


def hold_parity(
    model: Classifier, precision: str, answers: Answers, images: np.ndarray, config: ExportConfig
) -> Parity:
    """What `compare` finds on uint8 `images`; CheckFailed where that does not do for an artifact of `precision`."""
    compared = compare_logits(
        model, answers, images, min_agreement=config.min_agreement, tolerance=TOLERANCE[precision]
    )
    if not compared:
        fix = "logits may lie too near together: train for longer, or set a lower min_agreement"
        raise CheckFailed(
            f"the exported {precision} file and the torch model disagree (predictions equal on "
            f"{compared.argmax_agreement:.1%} of {compared.n} images, logits differ by up to {compared.max_abs:.3g} "
            f"of {compared.scale:.3g}); nothing was kept{f'; {fix}' if precision == 'int8' else ''}"
        )
    return compared


def compare_logits(
    model: Classifier, answers: Answers, images: np.ndarray, *, min_agreement: float, tolerance: "float | None"
) -> Parity:
    """uint8 `images` (N,C,H,W) through both; `tolerance` bounds max_abs relative to the largest logit, if given."""
    with torch.no_grad():
        want = np.concatenate([model(to_float(part)).numpy() for part in torch.from_numpy(images).split(AT_ONCE)])
    max_abs, agreement = 0.0, 1.0
    for size in BATCH_SIZES:
        got = answers(images, size)
        max_abs = max(max_abs, float(np.abs(got - want).max()))
        agreement = min(agreement, float((got.argmax(1) == want.argmax(1)).mean()))
    scale = float(np.abs(want).max())
    close = tolerance is None or max_abs <= tolerance * max(scale, 1.0)
    equal = clopper_pearson(round(agreement * len(images)), len(images))[1] >= min_agreement
    return Parity(close and equal, len(images), BATCH_SIZES, max_abs, scale, agreement)


def through_onnx_runtime(file: Path) -> Answers:
    """The file's logits as ONNX Runtime gives them on the processor."""

    def answers(images: np.ndarray, batch_size: int) -> np.ndarray:
        with open_runner(file, batch_size=batch_size) as runner:
            return runner.infer(images)

    return answers


def as_written(file: Path) -> Answers:
    """The file's logits from ONNX Runtime's kernels, one operator after another as the graph has them.

    Of a graph in FP16 with quantizers its optimizer would quantize the biases too, on scales that FP16 cannot hold.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(file.read_bytes(), options, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0].name

    def answers(images: np.ndarray, batch_size: int) -> np.ndarray:
        parts = [to_float(part).numpy() for part in torch.from_numpy(images).split(batch_size)]
        return np.concatenate([session.run(None, {entry: part})[0] for part in parts])

    return answers


def through_torch(file: Path) -> Answers:
    """The file's logits as torch gives them for the same operators in the same types."""
    twin = onnx_twin.build_twin(file.read_bytes(), where=file.name)

    def answers(images: np.ndarray, batch_size: int) -> np.ndarray:
        with torch.no_grad():
            parts = [twin(to_float(part)) for part in torch.from_numpy(images).split(batch_size)]
        return torch.cat(parts).numpy()

    return answers


def _opens(file: Path) -> bool:
    try:
        open_runner(file).close()
    except CompressError:
        return False
    return True


LARGEST = torch.finfo(torch.float16).max  # 65504


def check_overflow(graph: EmittedGraph, images: np.ndarray) -> None:
    """Refuse an FP16 graph one of whose layers gives more than 65504 on uint8 `images` (N,C,H,W), by its name.

    Read off the twin in float32. BF16 ends where float32 does.
    """
    if graph.floats != "fp16":
        return
    for name, most in magnitudes(graph.twin, images).items():
        if not most <= LARGEST:
            raise CompressError(
                f"layer {name}: gives up to {most:.3g} on validation images, fp16 ends at {LARGEST:.0f}; "
                f"use --precision bf16 or float32"
            )


def magnitudes(model: nn.Module, images: np.ndarray) -> dict[str, float]:
    """Module name → the largest magnitude among its outputs, in the order of execution, NaN where there is one."""
    largest: dict[str, float] = {}

    def watch(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.is_floating_point():
                largest[name] = float(np.maximum(largest.get(name, 0.0), float(output.abs().max())))

        return hook

    handles = [m.register_forward_hook(watch(name)) for name, m in model.named_modules() if name]
    try:
        with torch.no_grad():
            for part in torch.from_numpy(images).split(32):
                model(to_float(part))
    finally:
        for handle in handles:
            handle.remove()
    return largest
