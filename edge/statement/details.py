"""All of a statement as text, for a person who wants to know where each figure comes from."""

from collections.abc import Mapping, Sequence
from typing import Any

from edge.evidence import text as evidence_text
from edge.statement.statement import text

Predicate = Mapping[str, Any]


def details(statement: Mapping[str, Any]) -> str:
    """The summary, then attacks, protocol, alarms, float figures, machine, versions, lineage and bound files."""
    predicate = statement["predicate"]
    parts = {
        f"statement   version {predicate['version']}, {statement['predicateType']}": [],
        "attacks": _attacks(predicate),
        "protocol": [_part(part) for part in predicate["protocol"]],
        "alarms": [_alarm(alarm) for alarm in predicate["alarms"]],
        "float figures, off the 8-bit grid": _float_figures(predicate),
        "execution": _execution(predicate),
        "state of the machine": evidence_text.details(predicate),
        "lineage": [f"{entry['stage']:<12} {entry['identity']}" for entry in predicate["lineage"]],
        "bound files": _bound(statement),
    }
    lines = [text(statement)]
    for title, rows in parts.items():
        if rows or title.startswith("statement"):
            lines += ["", title, *(f"  {row}" for row in rows)]
    return "\n".join(lines)


def _attacks(predicate: Predicate) -> list[str]:
    rows = [["", "kind", "accuracy", "broken", "alone", "parameters", "where"]]
    for row in predicate["attacks"]:
        given = ", ".join(f"{key} {_value(value)}" for key, value in row["parameters"].items())
        counts = [f"{row['robust_accuracy']:.1%}", str(row["broken"]), str(row["alone"])]
        rows.append([row["name"], row["kind"], *counts, given, row["where"]])
    return _columns(rows) if len(rows) > 1 else []


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _part(part: Predicate) -> str:
    said = "covered    " if part["covered"] else "NOT covered"
    return f"({part['part']}) {said} {part['what']}: {', '.join(part['attacks']) or '–'}; {part['where']}"


def _alarm(alarm: Predicate) -> str:
    return f"{'FIRED ' if alarm['fired'] else 'silent'} {alarm['name']}: {alarm['meaning']}"


def _float_figures(predicate: Predicate) -> list[str]:
    found = predicate.get("float_figures", {})
    return [f"{label}: {', '.join(_shares(figures))}" for label, figures in found.items()]


def _shares(figures: Predicate) -> list[str]:
    """Whatever the attack set says of a model: shares as they are, figures by their value."""
    said = []
    for name, value in figures.items():
        number = value.get("value") if isinstance(value, Mapping) else value
        said.append(f"{name} {number:.1%}" if isinstance(number, float) else f"{name} {number}")
    return said


def _execution(predicate: Predicate) -> list[str]:
    runtime, before = predicate["runtime"], predicate["machine"]["before"]
    versions = ", ".join(f"{name} {version}" for name, version in predicate["versions"].items())
    return [
        f"{runtime['name']} {runtime['version']}, {runtime['provider']}, {runtime['threads']} threads, "
        f"batches of {predicate['batch_size']}, seed {predicate['seed']}",
        f"machine   {before.get('cpu') or 'unknown CPU'}, kernel {before.get('kernel') or 'unknown'}",
        f"versions  {versions or 'none recorded'}",
    ]


def _bound(statement: Mapping[str, Any]) -> list[str]:
    predicate = statement["predicate"]
    files = {entry["name"]: entry["digest"]["sha256"] for entry in statement["subject"]}
    if "verdicts" in predicate:
        files[predicate["verdicts"]["file"]] = predicate["verdicts"]["sha256"]
        files |= predicate["attack_set"]["files"]
    width = max(map(len, files))
    return [f"{name:<{width}}  {sha256}" for name, sha256 in files.items()]


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
