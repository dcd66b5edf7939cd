"""Where everything came from: training, lineage, versions."""

from collections.abc import Mapping, Sequence
from typing import Any

from compress.report import svg
from compress.report.markup import Html, TableColumn, element, html_table, long_columns, section, text_columns
from compress.report.page_accuracy import legend
from edge.core import readable


def training(document: Mapping[str, Any]) -> "Html | None":
    """A small chart for each network that was trained: validation accuracy over epochs."""
    runs = document.get("training", ())
    if not runs:
        return None
    text = (
        "Accuracy in per cent on the validation split after each epoch, under the attack that selects the epoch. The "
        "dot is the epoch that was kept; no test image takes part."
    )
    return section(
        "training",
        "Training",
        element("p", text),
        legend({"clean": "clean", "pgd": "robust"}),
        element("div", *(_curves(run) for run in runs), class_="small-charts"),
    )


def _curves(run: Mapping[str, Any]) -> Html:
    series = {name: run[name] for name in ("clean", "pgd") if run[name]}
    ends = ", ".join(f"{name} {readable.percent(points[-1][1])}" for name, points in series.items())
    label = f"Validation accuracy of {run['label']} over epochs; at the end {ends.replace('pgd', 'robust')}"
    caption = element("figcaption", element("strong", run["label"]), f" {run['detail']}")
    return element("figure", caption, svg.curves(series, run["best_epoch"], label))


def provenance(document: Mapping[str, Any]) -> "Html | None":
    """Every stage with its identity, seed, command and date; then the versions that made them."""
    stages = document.get("provenance", ())
    if not stages:
        return None
    kinds = {"stage": "text", "identity": "code", "seed": "number", "finished": "code", "took": "number"}
    kinds |= {"machine": "long", "command": "long"}
    columns = [TableColumn(title, kind) for title, kind in kinds.items()]
    rows = [
        [
            stage["stage"],
            element("code", readable.short(stage["identity"]), title=stage["identity"]),
            readable.flat(stage.get("seed")),
            readable.moment(stage.get("finished")),
            readable.duration(stage.get("seconds")),
            readable.flat(stage.get("machine")),
            element("code", stage["command"]) if stage.get("command") else readable.NONE,
        ]
        for stage in stages
    ]
    # The data and the threat, and the versions by stage where they differ
    facts = [[name, readable.flat(value)] for name, value in document.get("facts", {}).items()]
    names = dict.fromkeys(name for stage in stages for name in stage.get("versions", {}))
    versions = [[name, _spread(stages, name)] for name in names]
    context = [
        html_table(title, [*text_columns(first), *long_columns(second)], part)
        for title, first, second, part in (
            ("Data and threat", "property", "value", facts),
            ("Versions", "package", "version", versions),
        )
        if part
    ]
    return section(
        "provenance", "Provenance", html_table("Stages, from the first to the last", columns, rows), *context
    )


def _spread(stages: Sequence[Mapping[str, Any]], name: str) -> str:
    """The version of a package; with the stages it made where there are several."""
    places: dict[str, list[str]] = {}
    for stage in stages:
        if name in stage.get("versions", {}):
            places.setdefault(str(stage["versions"][name]), []).append(stage["stage"])
    if len(places) == 1:
        return next(iter(places))
    return "; ".join(f"{version} ({', '.join(where)})" for version, where in places.items())
