"""`compress quantize`."""

from pathlib import Path
from typing import Any

import click

from compress.cli.lazy import Verb
from compress.cli.options import FOLDER, Shared, stage_options, training_options


@click.command(
    cls=Verb,
    examples=[
        "compress quantize runs/student --out runs/quantized",
        "compress quantize runs/student --mode ptq --out runs/quantized",
    ],
)
@click.argument("student", type=FOLDER)
@click.option("--mode", type=click.Choice(["qat", "ptq"]), help="Fine-tune through the quantizers, or only calibrate.")
@training_options
@stage_options()
def quantize(shared: Shared, student: Path, **flags: Any) -> None:
    """Quantize a student to INT8, fine-tuned with the student's own objective.

    Dataset, radius and seed are the student's where neither a flag nor --config gives them.
    """
    from compress.cli.stage import inherited, make, settle
    from compress.config import QuantizeConfig

    settled = settle(QuantizeConfig, "quantize", shared, flags, inherited(student, ["student"]))
    make("compress.quantize", settled, {"student": student}, shared)
