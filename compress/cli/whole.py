"""A whole run from the command line: carried out or previewed, and what is printed of it."""

import json
from pathlib import Path
from typing import Any

import click

from compress import chain
from compress.cli import boards, gates
from compress.cli.show import figures
from compress.config import Run
from edge.core.readable import table
from edge.statement.gate import requirement_cases


def preview(settled: Run, root: Path, start: "str | None", as_json: bool) -> None:
    """Print how every stage stands; nothing is made, not even folders."""
    steps = chain.steps(settled, root)
    states = chain.survey(steps, chain.downstream(steps, start) if start else chain.NONE)
    if not as_json:
        click.echo("\n".join(chain.lines(states)))
        return
    stages = [
        {"name": state.step.name, "folder": str(state.step.folder), "state": state.state, "why": state.why}
        for state in states
    ]
    click.echo(json.dumps({"folder": str(root), "stages": stages}, ensure_ascii=False))


def carry_out(settled: Run, root: Path, start: "str | None", as_json: bool, junit: "Path | None") -> None:
    """Run the chain and print its figures; exit 3 when a requirement failed, after everything is written."""
    for device in settled.devices:
        boards.check_device(device, ())
    result = chain.run(settled, root, start=start)
    cases = requirement_cases(result.outcomes)
    gates.write_junit(cases, junit)
    click.echo(json.dumps(_object(result), ensure_ascii=False) if as_json else "\n".join(_lines(result)))
    gates.leave(cases)


def _lines(result: chain.Result) -> list[str]:
    rows = [row for name, stage in result.stages.items() if (row := figures(name, stage))]
    return [
        *table(["stage", "clean", "robust", "robust by", "size", "p50"], rows),
        *(outcome.line() for outcome in result.outcomes),
        f"report  {result.report}",
        f"{len(result.made)} of {len(result.stages)} stages made, {result.seconds:.1f} s",
    ]


def _object(result: chain.Result) -> dict[str, Any]:
    stages = [
        {
            "name": name,
            "folder": str(stage.path),
            "made": name in result.made,
            "identity": stage.identity,
            "metrics": stage.metrics,
        }
        for name, stage in result.stages.items()
    ]
    return {
        "folder": str(result.root),
        "stages": stages,
        "shipped": result.shipped,
        "requirements": gates.as_objects(result.outcomes),
        "report": str(result.report),
        "seconds": round(result.seconds, 1),
    }
