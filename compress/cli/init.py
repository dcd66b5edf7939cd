"""`compress init`."""

import json
from pathlib import Path

import click

from compress.cli.main import Verb
from compress.cli.options import FOLDER
from edge.core import artifact
from edge.core.errors import CompressError


@click.command(
    cls=Verb, examples=["compress init", "compress init my-run.yaml --schema schema.json", "compress run my-run.yaml"]
)
@click.argument("file", type=FOLDER, default=Path("compress.yaml"))
@click.option("--schema", type=FOLDER, metavar="FILE", help="Also write the JSON schema, for editors.")
@click.option("--force", is_flag=True, help="Overwrite files that exist.")
def init(file: Path, schema: "Path | None", force: bool) -> None:
    """Write a starter config to FILE (compress.yaml): every key with its default and meaning."""
    from compress.config.starter import json_schema, starter

    written = {file: starter(file, schema)}
    if schema:
        written[schema] = json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    for path in written:
        if path.exists() and not force:
            raise CompressError(f"{path}: exists; choose another name or overwrite it with --force")
    for path, text in written.items():
        artifact.write_atomic(path, text)
        click.echo(f"wrote {path}")
