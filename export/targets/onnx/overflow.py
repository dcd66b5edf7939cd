"""Whether every tensor of a network stays within half precision's range on given images, before anything is kept."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compress.data.split import to_float
from edge.core.errors import CompressError
from export.targets.onnx.graph import Graph

LARGEST = torch.finfo(torch.float16).max  # 65504


def check(graph: Graph, images: np.ndarray) -> None:
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
    found: dict[str, float] = {}

    def watch(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.is_floating_point():
                found[name] = float(np.maximum(found.get(name, 0.0), float(output.abs().max())))

        return hook

    handles = [m.register_forward_hook(watch(name)) for name, m in model.named_modules() if name]
    try:
        with torch.no_grad():
            for part in torch.from_numpy(images).split(32):
                model(to_float(part))
    finally:
        for handle in handles:
            handle.remove()
    return found
