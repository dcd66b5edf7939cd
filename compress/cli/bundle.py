"""`compress bundle`."""

import json
from pathlib import Path

import click

from compress.cli.main import Verb
from compress.cli.options import FOLDER, json_option


@click.command(
    cls=Verb,
    examples=["compress bundle edge.pyz", "scp edge.pyz orin: && ssh orin python3 edge.pyz selftest"],
)
@click.argument("out", type=FOLDER)
@json_option()
def bundle(out: Path, as_json: bool) -> None:
    """Write the device side as one file, OUT, e.g. edge.pyz.

    It needs Python 3.10 or newer, numpy and a runtime, and nothing is installed. `python3 edge.pyz --help` lists what
    it does on a board: verify, bench, serve, selftest, check.
    """
    from compress.remote import bundle as made

    sha256 = made.write_bundle(out)
    size = out.stat().st_size
    written = {"file": str(out), "sha256": sha256, "bytes": size}
    click.echo(json.dumps(written) if as_json else f"bundle  {out}  {sha256:.12}  {size:,} bytes")
