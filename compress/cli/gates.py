"""The outcomes of requirements on the command line: lines, JSON, JUnit, and exit 3 when one failed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from compress.errors import CheckFailed


def label(outcome: Any) -> str:
    required = outcome.requirement
    return f"{required.name}{required.op}{required.value:g}"


def lines(outcomes: Sequence[Any]) -> list[str]:
    """One line a requirement: whether it is met, and why."""
    return [f"{'met   ' if outcome.passed else 'FAILED'}  {label(outcome)}  {outcome.why}" for outcome in outcomes]


def as_objects(outcomes: Sequence[Any]) -> list[dict[str, Any]]:
    return [
        {"requirement": label(outcome), "passed": outcome.passed, "got": outcome.got, "why": outcome.why}
        for outcome in outcomes
    ]


def write_junit(outcomes: Sequence[Any], path: "Path | None") -> None:
    if path is not None:
        from edge import gate

        gate.junit(outcomes, path)


def leave(outcomes: Sequence[Any]) -> None:
    """Exit 3 when a requirement failed. Not raised as a fault: the results were printed, the one JSON object too."""
    failed = [label(outcome) for outcome in outcomes if not outcome.passed]
    if failed:
        click.echo(f"compress: {len(failed)} of {len(outcomes)} requirements failed: {', '.join(failed)}", err=True)
        raise click.exceptions.Exit(CheckFailed.exit_code)
