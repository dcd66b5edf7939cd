"""`compress export`."""

from pathlib import Path
from typing import Any

import click

from compress import names
from compress.cli.lazy import Verb
from compress.cli.options import FOLDER, Name, Shared, stage_options


@click.command(
    cls=Verb,
    examples=[
        "compress export runs/quantized --target onnx --out runs/exported",
        "compress export model.onnx --target onnx --data cifar10 --out runs/adopted",
    ],
)
@click.argument("model", type=FOLDER)
@click.option("--target", type=Name("target", names.TARGETS), help="Runtime to export for.")
@click.option("--opset", type=int, help="ONNX opset.")
@stage_options()
def export(shared: Shared, model: Path, **flags: Any) -> None:
    """Write the file that is shipped, from a student or a quantized stage, and hold it against the torch model.

    An ONNX file that was made elsewhere is adopted: its very bytes, held against the dataset and its labels.
    """
    from compress.cli.stage import inherited, make, settle
    from compress.config import ExportConfig

    base = {} if model.suffix == ".onnx" and not model.is_dir() else inherited(model, ["student", "quantized"])
    settled = settle(ExportConfig, "export", shared, flags, base)
    make("export.stage", settled, {"model": model}, shared)
