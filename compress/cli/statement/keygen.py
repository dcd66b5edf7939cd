"""`compress statement keygen`."""

from pathlib import Path

import click

from compress.cli.lazy import Verb
from compress.cli.options import FOLDER


@click.command(cls=Verb, examples=["compress statement keygen signing.key"])
@click.argument("key", type=FOLDER)
def keygen(key: Path) -> None:
    """Make an Ed25519 key: KEY, readable by its owner alone, and KEY.pub for everybody who checks."""
    from compress import signing

    click.echo(f"{key}\n{signing.keygen(key)}")
