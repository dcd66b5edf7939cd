"""The outcomes of a gate on the command line: JSON, JUnit, annotations, and exit 3 when something failed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from edge.core.errors import CheckFailed
from edge.statement.gate import ALARM, REQUIREMENT, GateJudgement, Outcome
from edge.statement.gate_formats import GateCase, github, junit
from edge.statement.statement import as_json


def as_objects(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    return [
        {"requirement": str(outcome.requirement), "passed": outcome.passed, "got": outcome.got, "why": outcome.why}
        for outcome in outcomes
    ]


def judged(judgement: GateJudgement) -> dict[str, Any]:
    """What `--json` adds to the object of a verified stage."""
    judged_fields: dict[str, Any] = {
        "requirements": as_objects(judgement.outcomes),
        "alarms": judgement.stated.predicate.fired,
        "warnings": as_json(judgement.stated.predicate.warnings or []),
    }
    return judged_fields if judgement.comparison is None else {**judged_fields, "comparison": judgement.comparison}


def write_junit(cases: Sequence[GateCase], path: "Path | None") -> None:
    if path is not None:
        junit(cases, path)


def annotate(cases: Sequence[GateCase], form: "str | None", *, as_json: bool) -> None:
    """Workflow commands, on stdout; on stderr where stdout is one JSON object: GitHub's runner reads both."""
    if form is not None:
        for line in github(cases):
            click.echo(line, err=as_json)


def leave(cases: Sequence[GateCase]) -> None:
    """Exit 3 when something failed. Not raised as a fault: the results were printed, the one JSON object too."""
    failed = [case for case in cases if case.failed]
    if not failed:
        return
    required = [case for case in cases if case.group == REQUIREMENT]
    unmet = [case.name for case in required if case.failed]
    reasons = [f"{len(unmet)} of {len(required)} requirements failed: {', '.join(unmet)}"] if unmet else []
    reasons += [f"{case.group} failed: {case.name}" for case in failed if case.group not in (REQUIREMENT, ALARM)]
    click.echo(f"compress: {'; '.join(reasons)}", err=True)
    raise click.exceptions.Exit(CheckFailed.exit_code)
