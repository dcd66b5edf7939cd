"""Accuracy, by stage and by attack."""

from collections.abc import Mapping
from typing import Any

from compress.report import svg
from compress.report.markup import Html, element, html_table, join, long_columns, number_columns, section, text_columns
from edge.core import readable

SERIES = {"clean": "clean", "pgd": "PGD", "worst": "worst case"}


def by_stage(document: Mapping[str, Any]) -> "Html | None":
    """The chart and the table of all models, from the baseline without robustness to the shipped file."""
    rows = document.get("stages", ())
    if not rows:
        return None
    steps = {row["pgd_steps"] for row in rows if row["pgd"] is not None}
    same = f"PGD-{steps.pop()}" if len(steps) == 1 else "PGD"
    names = {**SERIES, "pgd": same}
    # The chart in words, for who cannot see it
    spoken = "Accuracy by stage. " + " ".join(
        row["label"]
        + ": "
        + ", ".join(f"{names[key]} {readable.percent(row[key]['value'])}" for key in names if row[key] is not None)
        + "."
        for row in rows
    )
    chart = svg.bars([(row["label"], _bars(row)) for row in rows], spoken)
    numbers = number_columns("parameters", "size", "clean", same, "worst case")
    columns = [*text_columns("model"), *numbers, *long_columns("how robustness was measured")]
    return section(
        "stages",
        "Accuracy by stage",
        element(
            "p",
            f"“{same}” is one attack on the model itself and compares the networks with each other; “worst case” is "
            "the pointwise worst of several attacks and is what counts for a deployed file. A hollow bar and “≤” mark "
            "an upper bound: part of the protocol was not run there.",
        ),
        legend(names),
        chart,
        html_table("Accuracy of every stage in per cent of test images", columns, [_row(row) for row in rows]),
    )


def legend(names: Mapping[str, str]) -> Html:
    """What each colour stands for; the keys are the CSS classes of the series."""
    return element(
        "p",
        join(element("span", element("i", class_=f"key {series}"), " ", name) for series, name in names.items()),
        class_="legend",
    )


def _bars(row: Mapping[str, Any]) -> list[svg.Bar]:
    return [
        svg.Bar(series, row[series]["value"], tuple(row[series]["interval"]), series == "worst" and row["bound"])
        for series in SERIES
        if row[series] is not None
    ]


def _row(row: Mapping[str, Any]) -> list[Any]:
    name = join([row["label"], element("small", row["detail"]) if row["detail"] else None])
    return [
        name,
        readable.number(row["parameters"]),
        readable.size(row["bytes"]),
        _cell(row["clean"]),
        _cell(row["pgd"]),
        _cell(row["worst"], bound=row["bound"]),
        row["how"],
    ]


def _cell(figure: "Mapping[str, Any] | None", *, bound: bool = False) -> Html:
    """A figure with its interval and n below."""
    if figure is None:
        return Html(readable.NONE)
    text = ("≤ " if bound else "") + readable.percent(figure["value"])
    return join([text, element("small", readable.interval(figure)), element("small", f"n = {figure['n']}")])


def by_attack(document: Mapping[str, Any]) -> "Html | None":
    """For each verified artifact what each attack broke, then every attack on every model."""
    tables = [_attacks(entry) for entry in document.get("verified", ())]
    matrix = document.get("matrix")
    if not tables and matrix is None:
        return None
    return section("attacks", "Accuracy by attack", *tables, _matrix(matrix) if matrix else None)


def _attacks(entry: Mapping[str, Any]) -> Html:
    numbers = number_columns("broken", "robust accuracy", "alone")
    columns = [*text_columns("attack", "kind"), *long_columns("where it ran", "parameters"), *numbers]
    rows = [
        [
            element("code", attack["name"]),
            attack["kind"],
            attack["where"],
            readable.flat(attack["parameters"]),
            f"{attack['broken']} of {attack['n']}",
            readable.percent(attack["robust_accuracy"]),
            attack["alone"],
        ]
        for attack in entry["predicate"]["attacks"]
    ]
    note = element(
        "p",
        "“Broken” counts images that were right before the attack; “alone” counts those that no other attack broke.",
        class_="quiet",
    )
    return join([html_table(f"Attacks on {entry['label']}", columns, rows), note])


def _matrix(matrix: Mapping[str, Any]) -> Html:
    """Robust accuracy of each model (column) under each attack of the attack set (row)."""
    columns = [*text_columns("attack"), *number_columns(*matrix["models"])]
    rows = [["no attack", *map(_shade, matrix["clean"])]]
    rows += [
        [element("code", name), *map(_shade, shares)]
        for name, shares in zip(matrix["attacks"], matrix["robust"], strict=True)
    ]
    rows.append(["all of them", *map(_shade, matrix["worst"])])
    text = (
        f"{matrix['n']} images, each candidate made against the model after the “@” and shown to all of them. "
        "Attacks without gradients are not part of the set."
    )
    return join(
        [
            html_table("The attack set on every model: robust accuracy", columns, rows),
            element("p", text, class_="quiet"),
        ]
    )


def _shade(share: float) -> Html:
    """The number on a tint that grows with what was broken."""
    return element("span", readable.percent(share), class_="shade", style=f"--broken: {100 * (1 - share):.0f}%")
