"""The variance gap: robust accuracy against the gap between statistics on adversarial and on clean images."""

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from compress.report.markup import Html, element, html_table, number_columns, section, text_columns
from compress.report.sources import Sources
from edge.core import readable
from edge.core.artifact import Stage


def analysis(document: Mapping[str, Any]) -> "Html | None":
    """The figure, a row a model, and the predictors across models."""
    analysed = document.get("analysis")
    if analysed is None:
        return None
    text = (
        f"How far feature variance and softmax Gram matrices move under PGD-{analysed['steps']} of growing radius, on "
        f"{analysed['n']} test images. r is Pearson's correlation with robust accuracy, its interval a bootstrap over "
        "images within a model and over models across them. A correlation is no cause; where the interval contains 0, "
        "no relation is shown."
    )
    # The figure in words, for who cannot see it
    each = "; ".join(f"{row['label']} {_r(row['variance'])}" for row in analysed["models"])
    spoken = f"Robust accuracy against variance gap and Gram gap over radii, and across models; r of the former: {each}"
    titles = ("clean", f"robust at {analysed['eps']}", "variance gap", "r over radii", "Gram gap", "r over radii")
    rows = [
        [
            row["label"],
            readable.percent(row["clean"]),
            readable.percent(row["robust"]),
            readable.percent(row["variance_gap"]),
            _r(row["variance"]),
            readable.percent(row["image_gram_gap"]),
            _r(row["image_gram"]),
        ]
        for row in analysed["models"]
    ]
    models = html_table("Gaps relative to clean images", [*text_columns("model"), *number_columns(*titles)], rows)
    return section(
        "analysis",
        "Variance gap",
        element("p", text),
        element("img", src=analysed["figure"], alt=spoken, style="width: 100%; height: auto; background: #fff"),
        models,
        _across(analysed),
    )


def _across(analysed: Mapping[str, Any]) -> Html:
    across = analysed["across_models"]
    if "reason" in across:
        return element("p", f"Across models: {across['reason']}.", class_="quiet")
    controlled = f"r given {' and '.join(across['given'])}"
    columns = [*text_columns("predictor"), *number_columns("r", "over models", "over images", controlled)]
    rows = [
        [
            row["label"] + (", a rival" if row["kind"] == "rival" else ""),
            readable.NONE if row["r"] is None else f"{row['r']:+.3f}",
            _bounds(row["over_models"]),
            _bounds(row["over_images"]),
            _r(row["partial"], "over_models") if "partial" in row else readable.NONE,
        ]
        for row in across["predictors"]
    ]
    note = f" ({across['note']})" if across["note"] else ""
    return html_table(f"Robust accuracy across {across['n']} models at eps {analysed['eps']}{note}", columns, rows)


def _r(entry: Mapping[str, Any], interval: str = "interval") -> str:
    if entry["r"] is None:
        return str(entry["reason"])
    bounds = entry[interval]
    return f"{entry['r']:+.3f}" + (f" ({_bounds(bounds)})" if bounds else "")


def _bounds(bounds: "Sequence[float] | None") -> str:
    return readable.NONE if bounds is None else f"{bounds[0]:+.3f} to {bounds[1]:+.3f}"


def analysis_part(stage: "Stage | None") -> "dict[str, Any] | None":
    """The document's `analysis`; checkpoints stand in the figure only."""
    if stage is None:
        return None
    content = json.loads(stage.file("analysis.json").read_text(encoding="utf-8"))
    picture = base64.b64encode(stage.file("figure.png").read_bytes()).decode()
    shared = {key: content[key] for key in ("eps", "across_models")}
    return {
        **shared,
        "n": content["data"]["n"],
        "steps": content["attack"]["steps"],
        "figure": f"data:image/png;base64,{picture}",
        "models": [_row(model, content["eps"]) for model in content["models"] if model["epoch"] is None],
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


def outdated(sources: Sources) -> Iterator[str]:
    """A sentence when the analysis is about other networks than those in the folder."""
    if sources.analysis is None:
        return
    inputs = sources.analysis.manifest["plan"]["inputs"]
    seen = {identity for role, identity in inputs.items() if role.startswith("model-")}
    if seen - {stage.identity for _, stage in sources.trained()}:
        yield "The analysis is about networks that are not in this folder any more; run compress analyze again."
