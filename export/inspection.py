"""What an artifact holds, without running it on images: contract, files, layers, quantization, engine, lineage."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from compress.networks import is_graph_file
from edge.core import artifact, targets
from edge.core.artifact import Stage
from edge.core.errors import CompressError
from edge.core.foreign_messages import disguise
from edge.runtimes.runner import MODEL
from edge.runtimes.tensorrt.layers import LAYERS
from edge.runtimes.tensorrt.recipe import ENGINE, RECIPE, SIDECAR
from export import contract
from export.targets.onnx.class_names import names_in_metadata
from export.targets.onnx.foreign_file import check_types, stored_tensors
from export.targets.onnx.layers import describe_graph, spread
from export.targets.onnx.precision import precision_of

ARCHITECTURE, WEIGHTS, QUANTIZER = "model.json", "weights.safetensors", "quantizer.json"
TYPES = {
    "F32": ("float32", 4),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "F64": ("float64", 8),
    "I64": ("int64", 8),
}
#: Of what lies outside of a stage; the order is that of every answer.
UNKNOWN = dict.fromkeys(
    ("path", "kind", "target", "identity", "model", "precision", "contract", "files", "bytes", "graph", "engine")
)
ROW = ("name", "type", "precision", "weighted", "nodes")  # what is shown of a layer of an engine
RANGE = "amax"  # a quantizer's largest value
LEVELS = {True: 255, False: 127}  # of unsigned and of signed grids


def inspect_artifact(where: "Path | str") -> dict[str, Any]:
    """A stage's folder, an `.onnx` file, or an `engine.plan` with its sidecars beside it. JSON types.

    {"path", "kind", "target", "identity", "model", "contract", "files", "bytes", "graph", "engine", "data", "lineage"},
    null where it has none. A stage's hashes are checked: a file that is not what its manifest says is a CompressError.
    """
    path = Path(where)
    if path.is_dir():
        if (path / SIDECAR).is_file() and not (path / artifact.MANIFEST).is_file():
            return _loose_engine(path)
        return _stage(artifact.read(path))
    if is_graph_file(path) and path.is_file():
        return _loose_onnx(path)
    if path.is_file() and (path.parent / artifact.MANIFEST).is_file():
        return _stage(artifact.read(path.parent))
    if path.is_file() and (path.parent / SIDECAR).is_file():
        return _loose_engine(path.parent)
    if path.is_file():
        raise CompressError(f"{path}: without {SIDECAR} beside it nothing can be said of it; give the exported folder")
    return _stage(artifact.read(path))


def _stage(stage: Stage) -> dict[str, Any]:
    target = stage.config.get("target")
    engine_facts = describe_engine(stage.path)
    proto = onnx.load(stage.file(MODEL)) if stage.file(MODEL).is_file() else None
    source = nearest_holding(stage, ARCHITECTURE)
    about = None if source is None else _json(source.file(ARCHITECTURE))  # {"model", "input": [C, H, W], "classes"}
    layered = None
    if proto is not None:
        layered = describe_graph(proto, _as_executed(target or targets.DEFAULT.name, stage.file(MODEL)))
        if engine_facts is not None:
            layered["layers"] = layers_in_engine(layered["layers"], engine_facts)
    elif stage is source:
        layered = describe_torch_stage(stage)
    described = contract.contract_of_folder(stage.path)
    if described is None and proto is not None:
        described = contract.contract_of_graph(proto, about["classes"] if about else None)
    elif described is None and about is not None and stage is source:
        described = contract.contract_of_architecture(about)
    entries = {**stage.manifest["payload"], **stage.manifest["records"]}
    return {
        "path": str(stage.path),
        "kind": stage.kind,
        "target": target,
        "identity": stage.identity,
        "model": about["model"] if about else None,
        "precision": stage.metrics.get("precision"),
        "contract": described,
        "files": [{"name": name, **entry, "verified": True} for name, entry in entries.items()],
        "bytes": sum(entry["bytes"] for entry in entries.values()),
        "graph": layered,
        "engine": engine_facts,
        "metrics": stage.metrics,
        "data": stage.manifest["made"].get("data", []),
        "lineage": list(ancestors(stage)),
    }


def _loose_onnx(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    try:
        proto = onnx.load_model_from_string(content)
    except Exception as fault:  # the parser's exceptions share no base class
        other = disguise(content) or f"not readable as ONNX ({type(fault).__name__}); give an .onnx file"
        raise CompressError(f"{path}: {other}") from None
    if not proto.HasField("graph"):
        raise CompressError(f"{path}: {disguise(content) or 'holds no graph; export it again'}")
    check_types(stored_tensors(proto), path)
    return UNKNOWN | {
        "path": str(path),
        "kind": "onnx file",
        "precision": precision_of(proto).name,
        "contract": contract.contract_of_folder(path.parent) or contract.contract_of_graph(proto, _labels(proto)),
        "files": [_file(path)],
        "bytes": path.stat().st_size,
        "graph": describe_graph(proto, _as_executed(targets.DEFAULT.name, path)),
        "metrics": {},
        "data": [],
        "lineage": [],
    }


def _labels(proto: onnx.ModelProto) -> "tuple[str, ...] | None":
    """The class names in its metadata, where there are as many as its output is wide."""
    sizes = list(proto.graph.output[0].type.tensor_type.shape.dim) if proto.graph.output else []
    return names_in_metadata(proto, sizes[1].dim_value).names if len(sizes) > 1 else None


def _loose_engine(folder: Path) -> dict[str, Any]:
    """An engine that was built on a device, outside of a stage: only its sidecar's hash vouches for it."""
    engine_facts = describe_engine(folder)
    assert engine_facts is not None and engine_facts["about"] is not None
    files = [_file(path) for path in sorted(folder.iterdir()) if path.is_file()]
    for entry in files:
        if entry["name"] == ENGINE:
            entry["verified"] = entry["sha256"] == engine_facts["about"]["sha256"]
            if not entry["verified"]:
                raise CompressError(
                    f"{folder / ENGINE}: has sha256 {entry['sha256']:.12}, {SIDECAR} says "
                    f"{engine_facts['about']['sha256']:.12}; delete the folder, the engine is built anew"
                )
    return UNKNOWN | {
        "path": str(folder),
        "kind": "engine",
        "target": engine_facts["about"]["library"]["target"],
        "precision": engine_facts["about"].get("precision"),
        "contract": contract.contract_of_folder(folder),
        "files": files,
        "bytes": sum(entry["bytes"] for entry in files),
        "engine": engine_facts,
        "metrics": {},
        "data": [],
        "lineage": [],
    }


def _file(path: Path) -> dict[str, Any]:
    """A file that no manifest lists: its hash is stated, not checked."""
    return {"name": path.name, "sha256": artifact.file_sha256(path), "bytes": path.stat().st_size, "verified": None}


def _as_executed(target: str, path: Path) -> "onnx.ModelProto | None":
    """The graph that the target's runtime makes of a file; None where that is not known."""
    optimised = targets.optimiser(targets.get(target))
    return None if optimised is None else optimised(path.read_bytes())


def describe_engine(folder: Path) -> "dict[str, Any] | None":
    """{"built", "about": engine.json, "recipe": recipe.json, "layers": layers.json without its rows, "rows"}.

    None where neither an engine nor a recipe for one lies. What of it is missing is null.
    """
    about, recipe, report = (_json(folder / name) for name in (SIDECAR, RECIPE, LAYERS))
    if about is None and recipe is None:
        return None
    return {
        "built": (folder / ENGINE).is_file(),
        "about": about,
        "recipe": recipe,
        "layers": None if report is None else {key: value for key, value in report.items() if key != "layers"},
        "rows": [] if report is None else [{key: row[key] for key in ROW} for row in report["layers"]],
    }


def layers_in_engine(rows: Sequence[dict[str, Any]], engine_facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Layers of the ONNX graph with the precision that the engine executes their weights in."""
    weighted = (engine_facts["layers"] or {}).get("weighted", {})
    is_reported = engine_facts["layers"] is not None
    return [
        row | {"execution": weighted.get(row["node"], "unknown") if is_reported and row["weight"] else None}
        for row in rows
    ]


def _json(path: Path) -> "dict[str, Any] | None":
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


# ----------------------------------------------------------------------------------------------- weights of torch


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


# ----------------------------------------------------------------------------------------------- lineage


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
            row |= {"state": "found" if path.exists() else "absent", "kind": None, "identity": None, "what": ""}
            if role == "original":  # a file of another tool that was adopted
                row["identity"] = stage.config["adopted"]
                if path.is_file() and (sha256 := artifact.file_sha256(path)) != row["identity"]:
                    row |= {"state": "changed", "why": f"its sha256 is {sha256:.12} now"}
            yield row
            continue
        row["identity"] = wanted[role]
        parent = _read(path, row)
        if parent is not None and parent.identity != wanted[role]:
            row |= {"state": "changed", "why": f"holds {parent.identity:.12} now"}
            parent = None
        config = parent.config if parent else {}
        method = config.get("method") or []
        # model and method, or where its weights are from
        words = [config.get("model"), "+".join([method] if isinstance(method, str) else method), config.get("source")]
        what = ", ".join(str(word) for word in words if word)
        yield {**row, "kind": parent.kind if parent else None, "what": what}
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
