"""`compress quantize`."""

from pathlib import Path
from typing import Any

import click

from compress import names
from compress.cli.main import Verb
from compress.cli.options import FOLDER, METHOD, Name, Shared, stage_options, training_options
from edge.core import targets


@click.command(
    cls=Verb,
    examples=[
        "compress quantize runs/student --out runs/quantized",
        "compress quantize runs/student --mode ptq --max-robust-drop 0.5 --out runs/quantized",
        "compress quantize runs/student --mode ptq --sensitivity --ranges mse --out runs/quantized",
        "compress quantize runs/imported --method pgd-at --runtime tensorrt --out runs/quantized",
        "compress quantize model.onnx --data cifar10:DIR --mode ptq --out runs/quantized",
    ],
)
@click.argument("student", type=FOLDER)
@click.option("--mode", type=click.Choice(["qat", "ptq"]), help="Fine-tune through the quantizers, or only calibrate.")
@click.option("--method", type=METHOD, help="Objective of the fine-tuning; default the student's own.")
@click.option(
    "--teacher", "teachers", type=FOLDER, multiple=True, metavar="DIR", help="Teacher; default the student's."
)
@click.option("--clean-teacher", type=FOLDER, metavar="DIR", help="Second teacher; default the student's.")
@click.option("--ranges", type=Name("ranges", names.RANGES), help="How the activations' ranges are found; default max.")
@click.option(
    "--runtime",
    type=Name("runtime", targets.dialects()),
    help="Whose grid is fine-tuned through; default onnx.",
)
@click.option("--float-layer", "float_layers", multiple=True, metavar="NAME", help="A layer that stays floating point.")
@click.option("--sensitivity", is_flag=True, help="Measure what each layer in INT8 costs in robust accuracy.")
@click.option(
    "--max-robust-drop",
    type=float,
    metavar="POINTS",
    help="With --mode ptq: layers stay floating point until INT8 loses no more robust validation accuracy; or exit 3.",
)
@training_options
@stage_options()
def quantize(
    shared: Shared,
    student: Path,
    teachers: "tuple[Path, ...]",
    clean_teacher: "Path | None",
    float_layers: "tuple[str, ...]",
    sensitivity: bool,
    **flags: Any,
) -> None:
    """Quantize a student to INT8, fine-tuned with the student's own objective or another one.

    STUDENT is a stage's folder, of an adopted ONNX file too, or an ONNX file, which needs --data. Dataset, radius and
    seed are the student's where neither a flag nor --config gives them.
    """
    from compress.cli import stage
    from compress.cli.show import head, metric_lines, sensitivity_lines
    from compress.config import QuantizeConfig
    from compress.networks import is_graph_file
    from compress.stages import quantize as quantizing
    from compress.stages import sensitivity as record

    flags |= {"float_layers": list(float_layers) or None, "sensitivity": sensitivity or None}
    base = {} if is_graph_file(student) else stage.inherited(student, ["student", "teacher", "exported"])
    settled = stage.settle(QuantizeConfig, "quantize", shared, flags, base)
    out, complete = stage.place(shared)
    made = quantizing.run(settled, quantizing.QuantizeInputs(student, teachers, clean_teacher), out)
    measured = record.read_sensitivity(made)
    if shared.as_json:
        click.echo(stage.as_json(made, complete, **({"sensitivity": measured} if measured else {})))
        return
    lines = [head(made, complete), *metric_lines(made)]
    click.echo("\n".join(lines + (sensitivity_lines(measured) if measured else [])))
