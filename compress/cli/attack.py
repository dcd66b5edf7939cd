"""`compress attack`."""

from pathlib import Path
from typing import Any

import click

from compress.cli.lazy import Verb
from compress.cli.options import FOLDER, Shared, stage_options


@click.command(
    cls=Verb,
    examples=[
        "compress attack runs/student --quantized runs/quantized --exported runs/exported --out runs/attack-set",
    ],
)
@click.argument("student", type=FOLDER)
@click.option("--quantized", type=FOLDER, metavar="DIR", help="Quantized stage made from the student.")
@click.option("--exported", type=FOLDER, metavar="DIR", multiple=True, help="Exported stage; repeatable.")
@click.option("--images", type=int, help="Test images attacked, class-balanced; default all.")
@click.option("--steps", type=int, help="PGD steps of each attack.")
@click.option("--restarts", type=int, help="Random starts of each attack.")
@stage_options()
def attack(shared: Shared, student: Path, quantized: "Path | None", exported: "tuple[Path, ...]", **flags: Any) -> None:
    """Make the adversarial images that artifacts are judged by.

    White-box attacks on the student and its quantized twin, and hybrid ones that run forward on each exported artifact.
    """
    from compress.cli.stage import inherited, make, settle
    from compress.config import AttackConfig

    settled = settle(AttackConfig, "attack", shared, flags, inherited(student, ["student"]))
    inputs: dict[str, Any] = {"student": student, "exported": list(exported)}
    if quantized:
        inputs["quantized"] = quantized
    make("compress.attack", settled, inputs, shared)
