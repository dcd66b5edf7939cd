"""What an artifact holds, without running it on images: contract, files, layers, quantization, engine, lineage."""

from pathlib import Path
from typing import Any

import onnx

from edge.core import artifact, targets
from edge.core.artifact import Stage
from edge.core.errors import CompressError
from edge.runtimes.runner import MODEL
from edge.runtimes.tensorrt.sidecar import ENGINE, SIDECAR
from export.inspection import contract, engine, graph, lineage, torch_stage


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
    engine_facts = engine.describe_engine(stage.path)
    proto = onnx.load(stage.file(MODEL)) if stage.file(MODEL).is_file() else None
    source = lineage.nearest(stage, torch_stage.ARCHITECTURE)
    about = None if source is None else torch_stage.architecture(source)
    layered = None
    if proto is not None:
        layered = graph.describe_graph(proto, _as_executed(target or targets.DEFAULT.name, stage.file(MODEL)))
        if engine_facts is not None:
            layered["layers"] = engine.executed(layered["layers"], engine_facts)
    elif stage is source:
        layered = torch_stage.describe_torch_stage(stage)
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
        "lineage": list(lineage.ancestors(stage)),
    }


def _contract(stage: Stage, proto: "onnx.ModelProto | None", about: "dict[str, Any] | None") -> "dict[str, Any] | None":
    written = contract.of_folder(stage.path)
    if written is not None:
        return written
    if proto is not None:
        return contract.of_graph(proto, about["classes"] if about else None)
    return contract.of_architecture(about) if about and stage.file(torch_stage.ARCHITECTURE).is_file() else None


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
        "contract": contract.of_folder(path.parent) or contract.of_graph(proto, None),
        "files": [_file(path)],
        "bytes": path.stat().st_size,
        "graph": graph.describe_graph(proto, _as_executed(targets.DEFAULT.name, path)),
        "engine": None,
        "metrics": {},
        "lineage": [],
    }


def _loose_engine(folder: Path) -> dict[str, Any]:
    """An engine that was built on a device, outside of a stage: only its sidecar's hash vouches for it."""
    engine_facts = engine.describe_engine(folder)
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
        "contract": contract.of_folder(folder),
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
