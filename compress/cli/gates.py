"""The outcomes of requirements on the command line: JSON, JUnit, and exit 3 when one failed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from compress.errors import CheckFailed
from edge.gate import Outcome, junit


def as_objects(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    return [
        {"requirement": str(outcome.requirement), "passed": outcome.passed, "got": outcome.got, "why": outcome.why}
        for outcome in outcomes
    ]


def write_junit(outcomes: Sequence[Outcome], path: "Path | None") -> None:
    if path is not None:
        junit(outcomes, path)


def leave(outcomes: Sequence[Outcome]) -> None:
    """Exit 3 when a requirement failed. Not raised as a fault: the results were printed, the one JSON object too."""
    failed = [str(outcome.requirement) for outcome in outcomes if not outcome.passed]
    if failed:
        click.echo(f"compress: {len(failed)} of {len(outcomes)} requirements failed: {', '.join(failed)}", err=True)
        raise click.exceptions.Exit(CheckFailed.exit_code)
