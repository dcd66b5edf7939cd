"""What a report shows of an analyzed stage."""

import base64
import json
from collections.abc import Iterator
from typing import Any

from compress.report.sources import Sources
from edge.core.artifact import Stage


def of(stage: "Stage | None") -> "dict[str, Any] | None":
    """The document's `analysis`; checkpoints stand in the figure only."""
    if stage is None:
        return None
    found = json.loads(stage.file("analysis.json").read_text())
    picture = base64.b64encode(stage.file("figure.png").read_bytes()).decode()
    shared = {key: found[key] for key in ("eps", "across_models")}
    return {
        **shared,
        "n": found["data"]["n"],
        "steps": found["attack"]["steps"],
        "figure": f"data:image/png;base64,{picture}",
        "models": [_row(model, found["eps"]) for model in found["models"] if model["epoch"] is None],
    }


def _row(model: dict[str, Any], eps: str) -> dict[str, Any]:
    at = next(row for row in model["radii"] if row["eps"] == eps)
    gaps = ("variance", "image_gram")
    return {
        "label": model["name"],
        "clean": model["radii"][0]["robust"],
        "robust": at["robust"],
        **{f"{gap}_gap": at[f"relative_{gap}_gap"] for gap in gaps},
        **{gap: model["over_radii"][gap]["pearson"] for gap in gaps},
    }


def outdated(found: Sources) -> Iterator[str]:
    """A sentence when the analysis is about other networks than those in the folder."""
    if found.analysis is None:
        return
    inputs = found.analysis.manifest["plan"]["inputs"]
    seen = {identity for role, identity in inputs.items() if role.startswith("model-")}
    if seen - {stage.identity for _, stage in found.trained()}:
        yield "The analysis is about networks that are not in this folder any more; run compress analyze again."
