"""`compress run`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from compress.cli.main import Verb
from compress.cli.options import DATA, FOLDER, json_option, require_options, settings_option

if TYPE_CHECKING:
    from compress.chain import Result
    from compress.config import Run


@click.command(
    cls=Verb,
    examples=[
        "compress run configs/quickstart.yaml",
        "compress run compress.yaml --set student.epochs=60 --out runs/longer --dry-run",
        'compress run compress.yaml --from quantized --require "robust>=0.3" --junit gates.xml',
    ],
)
@click.argument("config")
@click.option("--out", type=FOLDER, metavar="DIR", help="Folder of the run; default: the config's, else runs/CONFIG.")
@click.option("--from", "start", metavar="STAGE", help="Make this stage and all that need it anew.")
@click.option("--dry-run", is_flag=True, help="Print how every stage stands and make nothing.")
@settings_option("the run's config")
@click.option("--data", type=DATA, help="The dataset, KIND or KIND:PATH, in place of the config's.")
@click.option(
    "--teacher", metavar="SOURCE", help="Import this teacher (as `compress teacher import`) in place of the config's."
)
@click.option("--seed", type=int, help="Seed of weights, batch order and attack starts.")
@require_options
@json_option()
def run(
    config: str,
    out: "Path | None",
    start: "str | None",
    dry_run: bool,
    settings: "tuple[str, ...]",
    data: "str | None",
    teacher: "str | None",
    seed: "int | None",
    require: "tuple[str, ...]",
    junit: "Path | None",
    as_json: bool,
) -> None:
    """Make the whole chain that CONFIG describes: teacher, students, artifacts, attack set, statements, report.

    CONFIG is a file or a built-in name (quickstart). Complete stages are kept, stale ones made again, unfinished ones
    resumed; the requirements are judged every time, those of --require beside the config's.
    """
    from compress.cli.stage import parsed_settings
    from compress.config import load_run, read_yaml

    overrides: dict[str, Any] = {key: value for key, value in (("data", data), ("seed", seed)) if value is not None}
    if teacher is not None:
        imported = "source" in (read_yaml(config).get("teacher") or {})
        overrides |= {"teacher.source": teacher} if imported else {"teacher": {"source": teacher}}
    settled = load_run(config, overrides | parsed_settings(settings))
    settled = settled.model_copy(update={"require": [*settled.require, *require]})
    root = out or Path(settled.out or f"runs/{Path(config).stem}")
    if dry_run:
        preview(settled, root, start, as_json)
    else:
        carry_out(settled, root, start, as_json, junit)


def preview(settled: "Run", root: Path, start: "str | None", as_json: bool) -> None:
    """Print how every stage stands; nothing is made, not even folders."""
    from compress import chain

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


def carry_out(settled: "Run", root: Path, start: "str | None", as_json: bool, junit: "Path | None") -> None:
    """Run the chain and print its figures; exit 3 when a requirement failed, after everything is written."""
    from compress import chain
    from compress.cli import boards, gates
    from edge.statement.gate import requirement_cases

    for device in settled.devices:
        boards.check_device(device, ())
    result = chain.run(settled, root, start=start)
    cases = requirement_cases(result.outcomes)
    gates.write_junit(cases, junit)
    click.echo(json.dumps(_object(result), ensure_ascii=False) if as_json else "\n".join(_lines(result)))
    gates.leave(cases)


def _lines(result: "Result") -> list[str]:
    from compress.cli.show import figures
    from edge.core.readable import table
    from edge.validity.rules import fired_checks

    rows = [row for name, stage in result.stages.items() if (row := figures(name, stage))]
    by_stage = {name: fired_checks(stage.metrics) for name, stage in result.stages.items()}
    alarms = [f"ALARM  {name}: {', '.join(fired)}" for name, fired in by_stage.items() if fired]
    return [
        *table(["stage", "clean", "robust", "robust by", "size", "p50"], rows),
        *alarms,
        *(outcome.line() for outcome in result.outcomes),
        f"report  {result.report}",
        f"{len(result.made)} of {len(result.stages)} stages made, {result.seconds:.1f} s",
    ]


def _object(result: "Result") -> dict[str, Any]:
    from compress.cli import gates

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
