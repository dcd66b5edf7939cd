"""`compress run`."""

from pathlib import Path
from typing import Any

import click

from compress.cli.lazy import Verb
from compress.cli.options import DATA, FOLDER, json_option, require_options, settings_option


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
    from compress.cli import whole
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
        whole.preview(settled, root, start, as_json)
    else:
        whole.carry_out(settled, root, start, as_json, junit)
