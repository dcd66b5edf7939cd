"""`compress report`."""

import json
from pathlib import Path

import click

from compress.cli.main import Verb
from compress.cli.options import FOLDER, json_option


@click.command(
    cls=Verb, examples=["compress report runs/quickstart", "compress report runs/verified --out robust.html"]
)
@click.argument("folder", type=FOLDER)
@click.option("--out", type=FOLDER, metavar="FILE", help="Where to write it; default FOLDER/report.html.")
@json_option()
def report(folder: Path, out: "Path | None", as_json: bool) -> None:
    """Write the self-contained HTML report of a run's folder or of one verified stage."""
    from compress.report import write

    written = write(folder, out)
    click.echo(json.dumps({"report": str(written)}) if as_json else written)
