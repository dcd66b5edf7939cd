"""`compress attack`."""

from pathlib import Path
from typing import Any

import click

from compress.cli import boards
from compress.cli.main import Verb
from compress.cli.options import FOLDER, Shared, stage_options


@click.command(
    cls=Verb,
    examples=[
        "compress attack runs/student --quantized runs/quantized --exported runs/exported --out runs/attack-set",
        "compress attack runs/imported --quantized runs/q --exported runs/e --images 500 --out runs/attack-set",
        "compress attack runs/s --quantized runs/q --exported runs/e --host user@orin --out runs/attack-set",
        "compress attack --exported runs/adopted --ensemble quick --out runs/attack-set",
    ],
)
@click.argument("student", type=FOLDER, required=False)
@click.option("--quantized", type=FOLDER, metavar="DIR", help="Quantized stage made from STUDENT.")
@click.option("--exported", type=FOLDER, metavar="DIR", multiple=True, help="Exported stage; repeatable.")
@click.option("--images", type=int, help="Test images attacked, class-balanced; default all.")
@click.option("--ensemble", type=click.Choice(["standard", "quick", "none"]), help="White box; none: PGD alone.")
@click.option("--steps", type=int, help="PGD steps of each attack beside the ensemble.")
@click.option("--restarts", type=int, help="Random starts of each attack.")
@boards.host_options(multiple=False)
@stage_options()
def attack(
    shared: Shared,
    student: "Path | None",
    quantized: "Path | None",
    exported: "tuple[Path, ...]",
    host: "str | None",
    python: "str | None",
    **flags: Any,
) -> None:
    """Make the adversarial images that artifacts are judged by.

    White-box attacks on STUDENT and its quantized twin, and hybrid ones that run forward on each exported artifact.
    STUDENT is the float network that they were made from: a student's folder, or a teacher's, imported or trained here.
    Without it, an artifact's twin is made from its own graph. With --host every forward pass of an artifact is
    the board's, every backward pass this machine's.
    """
    from compress.cli.stage import inherited, place, settle, show
    from compress.config import AttackConfig
    from compress.stages import attack as stage
    from edge.core.errors import CompressError

    if student is None and not exported:
        raise CompressError("nothing to attack: give the folder of a student or teacher, or --exported DIR, or both")
    if host and not exported:
        raise CompressError("--host: executes exported artifacts, and none is given; add --exported DIR")
    base = inherited(student, ["student", "teacher"]) if student else inherited(exported[0], ["exported"])
    settled = settle(AttackConfig, "attack", shared, flags, base)
    if host:
        boards.check_device("jetson", [host])
    out, complete = place(shared)
    show(stage.run(settled, stage.AttackInputs(student, quantized, exported, host, python), out), complete, shared)
