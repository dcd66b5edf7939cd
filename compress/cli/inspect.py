"""`compress inspect`."""

import json
from pathlib import Path

import click

from compress.cli.lazy import Verb
from compress.cli.options import FOLDER, json_option


@click.command(
    name="inspect",
    cls=Verb,
    examples=[
        "compress inspect runs/exported",
        "compress inspect model.onnx --json",
        "compress inspect runs/quantized",
    ],
)
@click.argument("artifact", type=FOLDER)
@json_option()
def inspect(artifact: Path, as_json: bool) -> None:
    """Say what an artifact holds: input contract, files, each layer's precision and size, Q/DQ pairs, lineage.

    ARTIFACT is the folder of any stage, an .onnx file, or an engine.plan with its files beside it. Hashes are checked;
    no image is needed. How a layer of an ONNX file executes is read off the graph that ONNX Runtime optimises for this
    processor, that of an engine off what its builder told.
    """
    from compress.cli.show_inspected import lines
    from export.inspection import inspect_artifact as look

    found = look(artifact)
    click.echo(json.dumps(found, ensure_ascii=False) if as_json else "\n".join(lines(found)))
