"""`compress demo`."""

from pathlib import Path

import click

from compress.cli.main import Verb
from compress.cli.options import FOLDER, json_option

CONFIG = "quickstart"


@click.command(cls=Verb, examples=["compress demo", "compress demo --out runs/demo"])
@click.option("--out", type=FOLDER, metavar="DIR", default=Path("runs") / CONFIG, help="Default runs/quickstart.")
@json_option()
def demo(out: Path, as_json: bool) -> None:
    """Run the built-in quickstart: handwritten digits, from the teacher to a verified INT8 artifact and its report."""
    from compress.cli import run
    from compress.config import load_run

    run.carry_out(load_run(CONFIG), out, None, as_json, None)
