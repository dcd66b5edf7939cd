"""`compress export`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from compress.cli.main import Verb
from compress.cli.options import FOLDER, Name, Shared, adopt_options, engine_options, stage_options
from edge.core import targets

if TYPE_CHECKING:
    from compress.config import ExportConfig


@click.command(
    cls=Verb,
    examples=[
        "compress export runs/quantized --target onnx --out runs/exported",
        "compress export runs/student --target onnx --precision fp16 --out runs/exported-fp16",
        "compress export runs/quantized --target tensorrt --batch 1:1:8 --out runs/engine",
        "compress export runs/quantized --target tensorrt-rtx --compute-capability 8.6 --out runs/engine-rtx",
        "compress export model.onnx --data cifar10 --normalize cifar10 --out runs/adopted",
        "compress export model.onnx --data npz:images.npz --normalize auto --labels names.txt --out runs/adopted",
        "compress export runs/quantized --all --out runs/candidates",
    ],
)
@click.argument("model", type=FOLDER)
@click.option("--target", type=Name("target", targets.names()), help="Runtime to export for.")
@click.option("--precision", type=Name("precision", targets.PRECISIONS), help="Arithmetic of the file; default auto.")
@click.option(
    "--all", "every", is_flag=True, help="Whatever can be made here, each to OUT/TARGET-PRECISION; one table."
)
@click.option("--opset", type=int, help="ONNX opset.")
@adopt_options
@engine_options
@stage_options()
def export(shared: Shared, model: Path, every: bool, **flags: Any) -> None:
    """Write the file that is shipped, from a student or a quantized stage, and hold it against the torch model.

    An ONNX file that was made elsewhere is adopted, held against the dataset and its labels: its very bytes, or with
    what makes float32 NCHW images in [0, 1] its input put in front. Accuracy on validation images is compared under the
    usual suspects, and the line that says which of them is better can be taken at its word, or by --normalize auto.
    """
    from compress.cli.stage import inherited, place, settle, show
    from compress.config import ExportConfig
    from compress.networks import is_graph_file
    from edge.core.errors import CompressError
    from export import stage

    adopts = is_graph_file(model)
    if not adopts and (given := [key for key in flags if key.startswith("adopt.") and flags[key] is not None]):
        raise CompressError(
            f"--{given[0].removeprefix('adopt.')}: is of ONNX files of other tools, {model} is none; leave it out"
        )
    base = {} if adopts else inherited(model, ["teacher", "student", "quantized"])
    settled = settle(ExportConfig, "export", shared, flags, base)
    if every:
        _every(settled, shared, model, [name for name in ("target", "precision") if flags[name] is not None])
    else:
        out, complete = place(shared)
        show(stage.run(settled, stage.ExportInputs(model), out), complete, shared)


def _every(settled: "ExportConfig", shared: Shared, model: Path, given: "list[str]") -> None:
    """Every candidate into a folder of its own, and one table of them."""
    import json

    from compress.cli.show import candidate_lines
    from edge.core.errors import CompressError
    from export import candidates

    if given:
        raise CompressError(f"--all tries every target and precision; leave --{given[0]} out, or --all")
    assert shared.out is not None  # click requires it
    candidate_table = candidates.export_candidates(settled, model, shared.out)
    click.echo(
        json.dumps(candidate_table.as_object(), ensure_ascii=False)
        if shared.as_json
        else "\n".join(candidate_lines(candidate_table))
    )
