"""Results as a few readable lines."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edge.core.artifact import Stage
from edge.core.readable import file_size, table

if TYPE_CHECKING:
    from edge.statement.statement import Predicate, Statement
    from export.candidates import Candidate, CandidateTable


#: Metrics of which the lines on stderr told what counts; the manifest has them whole.
SAID = ("notes", "suspects")


def head(stage: Stage, complete: bool) -> str:
    """Folder and short identity; `complete` when nothing had to be made."""
    return f"{stage.kind}  {stage.path}  {stage.identity:.12}" + ("  complete already" if complete else "")


def metric_lines(stage: Stage) -> list[str]:
    """What the manifest measured, a line a metric; without what there is none of, and what notes on stderr said."""
    metrics = {name: value for name, value in stage.metrics.items() if value is not None and name not in SAID}
    width = max(map(len, metrics), default=0)
    return [
        f"  {name:<{width}}  {_checks(value) if name == 'checks' else _value(value)}" for name, value in metrics.items()
    ]


def _checks(checks: "Sequence[Mapping[str, Any]] | Mapping[str, Sequence[Mapping[str, Any]]]") -> str:
    """How many were asked, and which fired; what they saw was told when they did. Of several models by their names."""
    if isinstance(checks, Mapping):
        return ", ".join(f"{name} {_checks(rows)}" for name, rows in checks.items())
    fired = [check["name"] for check in checks if check["fired"]]
    return f"{len(checks)} asked, {'fired: ' + ', '.join(fired) if fired else 'none fired'}"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_value(item)}" for name, item in value.items()) or "none"
    if isinstance(value, list):
        return " ".join(_value(item) for item in value) or "none"
    if isinstance(value, float):
        return f"{value:.4g}"
    if value is None:
        return "none"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def figures(name: str, stage: Stage) -> "list[str] | None":
    """The row of a stage in a run's table: name, clean, robust, robust by, size, p50; None for one without figures.

    An exported artifact's figures stand in the row of its verified stage, which executed it.
    """
    if stage.kind == "verified":
        stated = json.loads(stage.file("statement.json").read_text(encoding="utf-8"))["predicate"]
        stated_figures = stated["figures"]
        robust, how = (
            (stated_figures["robust"], "worst case")
            if stated_figures["robust"]
            else (stated_figures["upper_bound"], "upper bound only")
        )
        row = [_percent(stated_figures["clean"]["value"]), _percent(robust["value"]), how]
        return [name, *row, file_size(stated["artifact"]["bytes"]), f"{stated['latency']['p50_ms']:.3f} ms"]
    test = stage.metrics.get("test")
    if not test:
        return None
    weights = max(entry["bytes"] for entry in stage.manifest["payload"].values())
    how = f"{test['attack'].upper()}-{test['steps']}" if test["steps"] else str(test["attack"])
    return [name, _percent(test["clean"]), _percent(test["robust"]), how, file_size(weights), ""]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _standing(evaluated: Mapping[str, Any]) -> str:
    """What a figure is that no whole ensemble stands behind."""
    return "" if {"standard", "rand"} & {*evaluated["attack"]} else ", an upper bound: no standard ensemble"


def evaluation(evaluated: Mapping[str, Any]) -> list[str]:
    """An evaluation for people: the figure, a row an attack, the worst class, what else was asked, what was noticed."""
    low, high = evaluated["interval"]
    bounds = evaluated["robust_bounds"]
    robust = (
        _percent(bounds[0]) if evaluated["robust"] is not None else f"{_percent(bounds[0])} to {_percent(bounds[1])}"
    )
    threat = evaluated["threat"]
    lines = [
        f"  n {evaluated['n']}, {threat['norm']} eps {threat['eps']:.4g}",
        f"  clean   {_percent(evaluated['clean'])}",
        f"  robust  {robust}  (95 % interval {_percent(low)} to {_percent(high)}){_standing(evaluated)}",
    ]
    if evaluated["inconclusive"]:
        lines.append(f"  {evaluated['inconclusive']} images are inconclusive: the budget ended first")
    rows = [
        [
            row["name"],
            str(row["attacked"]),
            str(row["broke"]),
            _percent(row["robust_accuracy"]),
            f"{row['seconds']:.1f} s",
        ]
        for row in evaluated["attacks"]
    ]
    lines += [f"  {line}" for line in table(["attack", "attacked", "broke", "robust after it", "time"], rows)]
    worst = evaluated["by_class"][str(evaluated["worst_class"])]
    name = evaluated["data"]["classes"][evaluated["worst_class"]]
    lines.append(
        f"  worst class  {name}: clean {_percent(worst['clean'])}, robust {_percent(worst['robust_bounds'][0])}"
    )
    for row in evaluated.get("curve", []):
        lines.append(
            f"  at eps {row['eps']}  robust ≤ {_percent(row['robust_bounds'][1])}  ({', '.join(row['attack'])})"
        )
    if unseen := evaluated.get("unseen"):
        lines.append(
            f"  {unseen['norm']} eps {unseen['eps']}  robust ≤ {_percent(unseen['robust_bounds'][1])}  (quick)"
        )
    if corruptions := evaluated.get("corruptions"):
        each = ", ".join(f"{k} {_percent(v['mean'])}" for k, v in corruptions.items() if k != "mean")
        lines.append(f"  corruptions  {_percent(corruptions['mean'])}  ({each})")
    if transfer := evaluated.get("transfer"):
        lines += [f"  {line}" for line in _transfer(transfer)]
    fired = [f"  alarm  {check['name']}: {check['text']}" for check in evaluated["checks"] if check["fired"]]
    return [*lines, *(f"  note  {note}" for note in evaluated["notes"]), *fired]


def sensitivity_lines(costs: Mapping[str, Any]) -> list[str]:
    """What each layer in INT8 costs in robust accuracy, the most sensitive first."""
    low, high = costs["float"]["interval"]
    lines = [
        f"  robust validation accuracy of the float network {_percent(costs['float']['robust'])} (95 % interval "
        f"{_percent(low)} to {_percent(high)}), in INT8 {_percent(costs['int8']['robust'])}; PGD-{costs['steps']}, "
        f"eps {costs['eps']}, n {costs['n']}"
    ]
    by_name = {row["layer"]: row for row in costs["layers"]}
    rows = []
    for name in costs["most_sensitive_first"]:
        row = by_name[name]
        each = (row["alone_int8"], row["alone_float"])
        cells = [
            [_percent(verdict["robust"]), f"{verdict['drop_points']:+.2f}", f"{verdict['mean_margin']:.3f}"]
            for verdict in each
        ]
        rows.append([name, f"{row['weights']:,}", *cells[0], *cells[1]])
    titles = ["layer", "weights", "alone INT8", "points lost", "margin", "alone float", "points lost", "margin"]
    return [*lines, *(f"  {line}" for line in table(titles, rows))]


def _transfer(transfer: Mapping[str, Any]) -> list[str]:
    """Accuracy of the model in a column on the adversarial images of the model in a row."""
    roles = list(transfer["models"])
    rows = [[transfer["models"][a], *(_percent(transfer["accuracy"][a][b]) for b in roles)] for a in roles]
    return table(["images of, on", *(transfer["models"][role] for role in roles)], rows)


CANDIDATE_TITLES = ["candidate", "size", "logits differ by", "same class", "clean (val)", "p50", "state"]
STATES = ("executed", "built", "untested")


def candidate_lines(table_of: "CandidateTable") -> list[str]:
    """A row a candidate that was made, below them those that were not and why, and what is to be said of INT8."""
    exported = [row for row in table_of.rows if row.exported]
    return [
        f"candidates  {table_of.folder}",
        *(f"  {line}" for line in table(CANDIDATE_TITLES, [_candidate_cells(row) for row in exported])),
        *_grouped("not made", [row for row in table_of.rows if not row.exported]),
        *(
            line
            for state in STATES
            for line in _grouped(state, [row for row in exported if row.state == state and row.why])
        ),
        *(f"note: {line}" for line in table_of.notes),
    ]


def _grouped(state: str, rows: "Sequence[Candidate]") -> list[str]:
    """A line a reason, behind the names of those that share it."""
    reasons = dict.fromkeys(row.why for row in rows)
    return [f"  {state}  {', '.join(row.name for row in rows if row.why == why)}: {why}" for why in reasons]


def _candidate_cells(row: "Candidate") -> list[str]:
    parity, clean, latency = row.parity, row.clean, row.latency
    return [
        row.name,
        f"{row.metrics['bytes'] / 1e3:,.1f} kB",
        f"{parity['max_abs']:.3g} of {parity['scale']:.3g}" if parity else "",
        f"{100 * parity['argmax_agreement']:.1f} %" if parity else "",
        f"{100 * clean['value']:.1f} % of {clean['n']}" if clean else "",
        f"{latency.p50_ms:.3f} ms" if latency else "",
        row.state,
    ]


VERIFIED_TITLES = ["artifact", "precision", "clean", "robust", "95 % interval", "agreement", "p50", "size"]


def side_by_side(named: "Sequence[tuple[str, Statement]]") -> list[str]:
    """A row an artifact; then a row an attack, with its accuracy on each artifact, `–` where it did not run."""
    rows = [[name, *_verified_figures(stated.predicate)] for name, stated in named]
    by_name = [{row.name: row.robust_accuracy for row in stated.predicate.attacks} for _, stated in named]
    names = dict.fromkeys(name for accuracies in by_name for name in accuracies)
    attacks = [[name, *(f"{of[name]:.1%}" if name in of else "–" for of in by_name)] for name in names]
    columns = ["attack", *(name for name, _ in named)]
    return ["", *table(VERIFIED_TITLES, rows), "", *(table(columns, attacks) if attacks else [])]


def _verified_figures(predicate: "Predicate") -> list[str]:
    figures, agreement = predicate.figures, predicate.agreement
    worst = figures.worst
    low, high = worst.interval
    return [
        predicate.artifact.precision,
        f"{figures.clean.value:.1%}",
        f"{worst.value:.1%}" if figures.robust else f"≤ {worst.value:.1%}",
        f"{low:.1%} to {high:.1%}",
        "–" if agreement is None else f"{agreement.clean.argmax_agreement:.1%}",
        f"{predicate.times.p50_ms:.3f} ms",
        f"{predicate.artifact.bytes:,} B",
    ]
