"""The stages behind an artifact: their weights, read without torch, and where each came from, back to the teacher."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edge.core import artifact
from edge.core.artifact import Stage
from edge.core.errors import CompressError
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


def ancestors(stage: Stage, depth: int = 1, listed: "set[str] | None" = None) -> Iterator[dict[str, Any]]:
    """The stages that this one was made from, each followed by its own, which are told once; and the files of data.

    {"role", "depth", "path", "state": found, absent, changed or damaged, "kind", "identity", "what", "why"}. Hashes of
    every folder that is found are checked; `changed`: another stage stands there now.
    """
    listed = set() if listed is None else listed
    wanted = stage.manifest["plan"]["inputs"]
    for role in sorted(stage.manifest["lineage"], key=lambda role: role in wanted):
        path = stage.input_path(role)
        row: dict[str, Any] = {"role": role, "depth": depth, "path": str(path)}
        if role not in wanted:
            if str(path) in listed:
                continue
            listed.add(str(path))
            yield {**row, "state": "found" if path.exists() else "absent", "kind": None, "identity": None, "what": ""}
            continue
        row["identity"] = wanted[role]
        parent = _read(path, row)
        if parent is not None and parent.identity != wanted[role]:
            row |= {"state": "changed", "why": f"holds {parent.identity:.12} now"}
            parent = None
        yield {**row, "kind": parent.kind if parent else None, "what": _what(parent) if parent else ""}
        if parent is not None and parent.identity not in listed:
            listed.add(parent.identity)
            yield from ancestors(parent, depth + 1, listed)


def nearest_holding(stage: Stage, name: str) -> "Stage | None":
    """The closest stage, itself first, that holds a file of that name and is where it lay."""
    if stage.file(name).is_file():
        return stage
    for role in stage.manifest["plan"]["inputs"]:
        path = stage.input_path(role) if role in stage.manifest["lineage"] else None
        parent = None if path is None else _read(path, {})
        holder = None if parent is None else nearest_holding(parent, name)
        if holder is not None:
            return holder
    return None


def _read(path: Path, row: dict[str, Any]) -> "Stage | None":
    """The stage there; why not is put into `row`."""
    if not path.exists():
        row["state"] = "absent"
        return None
    try:
        row["state"] = "found"
        return artifact.read(path)
    except CompressError as fault:
        row |= {"state": "damaged", "why": str(fault)}
        return None


def _what(stage: Stage) -> str:
    """Model and method, or where its weights are from."""
    config = stage.config
    method = config.get("method")
    words = [config.get("model"), "+".join([method] if isinstance(method, str) else method or []), config.get("source")]
    return ", ".join(str(word) for word in words if word)
