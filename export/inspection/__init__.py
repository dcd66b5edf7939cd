"""What an artifact holds, without running it on images: contract, files, layers, quantization, engine, lineage."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx

from edge.core import artifact, targets
from edge.core.artifact import Stage
from edge.core.errors import CompressError
from edge.runtimes.runner import MODEL
from edge.runtimes.tensorrt.layers import LAYERS
from edge.runtimes.tensorrt.recipe import ENGINE, RECIPE, SIDECAR
from export import contract
from export.inspection import graph, stages


def inspect_artifact(where: "Path | str") -> dict[str, Any]:
    """A stage's folder, an `.onnx` file, or an `engine.plan` with its sidecars beside it. JSON types.

    {"path", "kind", "target", "identity", "model", "contract", "files", "bytes", "graph", "engine", "lineage"}, null
    where it has none. A stage's hashes are checked: a file that is not what its manifest says is a CompressError.
    """
    path = Path(where)
    if path.is_dir():
        if (path / SIDECAR).is_file() and not (path / artifact.MANIFEST).is_file():
            return _loose_engine(path)
        return _stage(artifact.read(path))
    if path.suffix == ".onnx" and path.is_file():
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
    source = stages.nearest_holding(stage, stages.ARCHITECTURE)
    about = None if source is None else stages.architecture(source)
    layered = None
    if proto is not None:
        layered = graph.describe_graph(proto, _as_executed(target or targets.DEFAULT.name, stage.file(MODEL)))
        if engine_facts is not None:
            layered["layers"] = layers_in_engine(layered["layers"], engine_facts)
    elif stage is source:
        layered = stages.describe_torch_stage(stage)
    entries = {**stage.manifest["payload"], **stage.manifest["records"]}
    return {
        "path": str(stage.path),
        "kind": stage.kind,
        "target": target,
        "identity": stage.identity,
        "model": about["model"] if about else None,
        "precision": stage.metrics.get("precision"),
        "contract": _contract(stage, proto, about),
        "files": [{"name": name, **entry, "verified": True} for name, entry in entries.items()],
        "bytes": sum(entry["bytes"] for entry in entries.values()),
        "graph": layered,
        "engine": engine_facts,
        "metrics": stage.metrics,
        "lineage": list(stages.ancestors(stage)),
    }


def _contract(stage: Stage, proto: "onnx.ModelProto | None", about: "dict[str, Any] | None") -> "dict[str, Any] | None":
    written = contract.contract_of_folder(stage.path)
    if written is not None:
        return written
    if proto is not None:
        return contract.contract_of_graph(proto, about["classes"] if about else None)
    return contract.contract_of_architecture(about) if about and stage.file(stages.ARCHITECTURE).is_file() else None


def _loose_onnx(path: Path) -> dict[str, Any]:
    try:
        proto = onnx.load(path, load_external_data=False)
    except Exception as fault:  # the parser's exceptions share no base class
        raise CompressError(f"{path}: not readable as ONNX ({type(fault).__name__}); give an .onnx file") from None
    return {
        "path": str(path),
        "kind": "onnx file",
        "target": None,
        "identity": None,
        "model": None,
        "precision": None,
        "contract": contract.contract_of_folder(path.parent) or contract.contract_of_graph(proto, None),
        "files": [_file(path)],
        "bytes": path.stat().st_size,
        "graph": graph.describe_graph(proto, _as_executed(targets.DEFAULT.name, path)),
        "engine": None,
        "metrics": {},
        "lineage": [],
    }


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
    return {
        "path": str(folder),
        "kind": "engine",
        "target": engine_facts["about"]["library"]["target"],
        "identity": None,
        "model": None,
        "precision": engine_facts["about"].get("precision"),
        "contract": contract.contract_of_folder(folder),
        "files": files,
        "bytes": sum(entry["bytes"] for entry in files),
        "graph": None,
        "engine": engine_facts,
        "metrics": {},
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
        "rows": [] if report is None else [_row(row) for row in report["layers"]],
    }


def layers_in_engine(rows: Sequence[dict[str, Any]], engine_facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Layers of the ONNX graph with the precision that the engine executes their weights in."""
    weighted = (engine_facts["layers"] or {}).get("weighted", {})
    is_reported = engine_facts["layers"] is not None
    return [
        row | {"execution": weighted.get(row["node"], "unknown") if is_reported and row["weight"] else None}
        for row in rows
    ]


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: row[key] for key in ("name", "type", "precision", "weighted", "nodes")}


def _json(path: Path) -> "dict[str, Any] | None":
    return dict(json.loads(path.read_text())) if path.is_file() else None
