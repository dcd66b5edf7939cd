"""docs/results.md's tables, from the rows of benchmarks/results/cifar10_methods.jsonl."""

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from edge.core.proportions import clopper_pearson

PAGE = Path(__file__).parent.parent / "docs" / "results.md"
BEGIN, END = "<!-- tables: python benchmarks/cifar10_methods.py --table -->", "<!-- end of tables -->"
REFERENCE = ("epochs", "VGap on RSLAD")
MISSING = "–"

Row = dict[str, Any]


def write(rows: Sequence[Row], cells: Iterable[tuple[Any, int]]) -> None:
    """Put the tables between the page's two marks; what is outside them stays."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{tables(rows, cells)}\n{END}{after}")


def tables(rows: Sequence[Row], cells: Iterable[tuple[Any, int]]) -> str:
    """Both tables as Markdown; a cell that was not run is a dash, one that failed says why below."""
    wanted: dict[str, dict[str, None]] = {}
    for cell, _ in cells:
        wanted.setdefault(cell.group, {})[cell.name] = None
    failed = [f"{row['group']}, {row['name']}, seed {row['seed']}: {row['failed']}" for row in rows if "failed" in row]
    blocks = [
        _methods(rows, [*wanted["epochs"]]),
        _options(rows, [*wanted["options"]]),
        _terms(rows),
        failed,
        _provenance(rows),
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def _methods(rows: Sequence[Row], names: Sequence[str]) -> list[str]:
    """Accuracies by method; RSLAD's epochs are the measure of time, so it stands in both halves."""
    lines = [
        "| | epochs | clean | PGD-20 | seconds | equal wall-clock: epochs | clean | PGD-20 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in names:
        equal = _found(rows, "epochs", name)
        timed = equal if name == "RSLAD" else _found(rows, "time", name)
        seconds = _mean([row["seconds"] for row in equal], "{:.0f}")
        lines.append(
            f"| {name} | {_mean([row['epochs'] for row in equal], '{:.0f}')} | {_each(equal, 'clean')} | "
            f"{_each(equal, 'robust')} | {seconds} | {_mean([row['epochs'] for row in timed], '{:.1f}')} | "
            f"{_each(timed, 'clean')} | {_each(timed, 'robust')} |"
        )
    return lines


def _options(rows: Sequence[Row], names: Sequence[str]) -> list[str]:
    reference = [row for row in _found(rows, *REFERENCE) if row["seed"] == 0]
    lines = [
        "| VGap on RSLAD, seed 0 | clean | PGD-20 | 95 % interval | PGD-20 less the default's |",
        "|---|---|---|---|---|",
    ]
    for name, found in [("as it is by default", reference), *((name, _found(rows, "options", name)) for name in names)]:
        if not found or not reference:
            lines.append(f"| {name} | {MISSING} | {MISSING} | {MISSING} | {MISSING} |")
            continue
        test = found[0]["test"]
        low, high = clopper_pearson(round(test["robust"] * found[0]["n"]), found[0]["n"])
        less = 100 * (test["robust"] - reference[0]["test"]["robust"])
        lines.append(
            f"| {name} | {test['clean']:.1%} | {test['robust']:.1%} | {low:.1%} to {high:.1%} | {less:+.1f} points |"
        )
    return lines


def _terms(rows: Sequence[Row]) -> list[str]:
    """What pulls at the student, in the first epoch and the last, where that was looked at."""
    looked = {}  # epochs that a budget cut before their first look are left out
    for row in rows:
        seen = [epoch for epoch in row.get("epochs_seen", []) if epoch]
        if seen:
            looked[f"{row['name']}, {row['group']}, seed {row['seed']}"] = (seen[0], seen[-1])
    if not looked:
        return []
    lines = [
        "| | share of the gradient: first epoch | last | the student's covariance: rank | effective rank | condition |",
        "|---|---|---|---|---|---|",
    ]
    for label, (first, last) in looked.items():
        spectra = [
            f"{last[f'covariance_{name}_student']:{form}}"
            for name, form in (("rank", ".0f"), ("effective_rank", ".1f"), ("condition", ".2g"))
        ]
        lines.append(f"| {label} | {_shares(first)} | {_shares(last)} | {' | '.join(spectra)} |")
    return lines


def _shares(seen: dict[str, float]) -> str:
    prefix = "gradient_share_"
    found = {name.removeprefix(prefix): share for name, share in seen.items() if name.startswith(prefix)}
    return ", ".join(f"{name} {share:.0%}" for name, share in found.items())


def _found(rows: Sequence[Row], group: str, name: str) -> list[Row]:
    return [row for row in rows if (row["group"], row["name"]) == (group, name) and "failed" not in row]


def _each(rows: Sequence[Row], what: str) -> str:
    """Every seed's accuracy on the test images, in the order of the seeds."""
    found = sorted(rows, key=lambda row: row["seed"])
    return ", ".join(f"{row['test'][what]:.1%}" for row in found) or MISSING


def _mean(values: Sequence[float], form: str) -> str:
    return form.format(statistics.mean(values)) if values else MISSING


def _provenance(rows: Sequence[Row]) -> list[str]:
    """What the rows share: images, machine, how many, when."""
    if not rows:
        return []
    kinds = sorted({(row["note"], row["cpu"], row["versions"]["torch"]) for row in rows})
    dates = sorted({row["date"] for row in rows})
    n = next(row["n"] for row in rows if "n" in row)
    when = " to ".join(dict.fromkeys((dates[0], dates[-1])))
    return [*(f"{note}; {cpu}, one thread, torch {torch}; n = {n:,}; {when}." for note, cpu, torch in kinds)]
