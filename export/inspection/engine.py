"""An engine through the files beside it; the plan itself is never opened, since that executes native code."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edge.runtimes.tensorrt.layers import LAYERS
from edge.runtimes.tensorrt.recipe import RECIPE
from edge.runtimes.tensorrt.sidecar import ENGINE, SIDECAR


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


def executed(rows: Sequence[dict[str, Any]], engine_facts: Mapping[str, Any]) -> list[dict[str, Any]]:
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
