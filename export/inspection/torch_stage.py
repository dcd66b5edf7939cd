"""The files of a teacher, student or quantized stage, read without torch."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edge.core.artifact import Stage
from export.inspection.graph import spread

ARCHITECTURE, WEIGHTS, QUANTIZER = "model.json", "weights.safetensors", "quantizer.json"
TYPES = {
    "F32": ("float32", 4),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "F64": ("float64", 8),
    "I64": ("int64", 8),
}
RANGE = "amax"  # a quantizer's largest value
LEVELS = {True: 255, False: 127}  # of unsigned and of signed grids


def architecture(stage: Stage) -> "dict[str, Any] | None":
    """{"model", "input": [C, H, W], "classes"}; None of a stage that holds no network."""
    return _json(stage.file(ARCHITECTURE))


def describe_torch_stage(stage: Stage) -> "dict[str, Any] | None":
    """The layers of a stage's weights, a module a row; of a quantized one the sites and their ranges as well."""
    path = stage.file(WEIGHTS)
    if not path.is_file():
        return None
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        names = list(file.keys())
        slices = {name: file.get_slice(name) for name in names}
        held = {name: (str(tensor.get_dtype()), list(tensor.get_shape())) for name, tensor in slices.items()}
        ranges = {_module(name): file.get_tensor(name) for name in names if name.rpartition(".")[2] == RANGE}
    layout = _json(stage.file(QUANTIZER))
    return {"layers": _layers(held), "quantization": None if layout is None else _quantization(layout, ranges)}


def _layers(held: "Mapping[str, tuple[str, list[int]]]") -> list[dict[str, Any]]:
    """Modules with a weight of two or more dimensions, in the file's order, with all that they store."""
    modules = [_module(name) for name, (_, shape) in held.items() if name.endswith(".weight") and len(shape) > 1]
    rows = []
    for module in modules:
        kind, shape = held[f"{module}.weight"]
        own = [entry for name, entry in held.items() if _module(name) == module]
        rows.append(
            {
                "name": module,
                "op": "Linear" if len(shape) == 2 else "Conv",
                "weight": shape,
                "stored": TYPES.get(kind, (kind, 4))[0],
                "parameters": math.prod(shape),
                "bytes": sum(TYPES.get(stored, (stored, 4))[1] * math.prod(size) for stored, size in own),
            }
        )
    return rows


def _quantization(layout: Mapping[str, Any], ranges: "Mapping[str, np.ndarray[Any, Any]]") -> dict[str, Any]:
    """Sites of activations with their signs and scales, as the state of the quantizer has them for any runtime."""
    unsigned = layout["unsigned"]
    weights = [array for name, array in ranges.items() if name.endswith(".weight_quantizer")]
    sites = {name: float(ranges[name]) / LEVELS[low] for name, low in unsigned.items() if name in ranges}
    return {
        "pairs": len(unsigned),
        "signed": sum(not low for low in unsigned.values()),
        "unsigned": sum(map(bool, unsigned.values())),
        "fused": len(layout["fused"]),
        "ranges": layout["ranges"],
        "runtime": layout["runtime"],
        "scales": spread(list(sites.values())),
        "weight_scales": spread([float(value) / LEVELS[False] for array in weights for value in array.reshape(-1)]),
        "left_float": list(layout["float_layers"]),
    }


def _module(name: str) -> str:
    return name.rpartition(".")[0]


def _json(path: Path) -> "dict[str, Any] | None":
    return dict(json.loads(path.read_text())) if path.is_file() else None
