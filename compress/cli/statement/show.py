"""`compress statement show`."""

import json
from pathlib import Path

import click

from compress.cli.lazy import Verb
from compress.cli.options import FOLDER, json_option


@click.command(cls=Verb, examples=["compress statement show runs/exported-cpu-verified"])
@click.argument("where", type=FOLDER, metavar="FILE|FOLDER")
@json_option()
def show(where: Path, as_json: bool) -> None:
    """Print a statement as text: figures, attacks, protocol, alarms, machine, lineage, bound files."""
    from edge.statement import statement
    from edge.statement.wording import statement_details

    stated = statement.read_statement(where)
    click.echo(json.dumps(stated.as_json(), ensure_ascii=False) if as_json else statement_details(stated))
