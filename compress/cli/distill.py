"""`compress distill`."""

from pathlib import Path
from typing import Any

import click

from compress import names
from compress.cli.lazy import Verb
from compress.cli.options import FOLDER, MODEL, Name, Shared, pace_options, stage_options, training_options


@click.command(
    cls=Verb,
    processes=True,
    examples=[
        "compress distill --teacher runs/teacher --student resnet8 --data digits --method vgap --out runs/student",
        "compress distill --data digits --method normal --out runs/not-robust",
    ],
)
@click.option(
    "--teacher",
    type=FOLDER,
    metavar="DIR",
    help="Teacher stage; not for methods that need none (normal, pgd-at, trades, n-fgsm).",
)
@click.option("--student", "model", type=MODEL, help="Architecture of the student.")
@click.option("--method", type=Name("method", names.METHODS), help="Objective it is trained with.")
@click.option("--floor", "teacher_floor", type=float, help="Robust accuracy the teacher must have; default 0.2.")
@click.option("--allow-non-robust", is_flag=True, help="Learn from any teacher: the same as --floor 0.")
@training_options
@pace_options
@stage_options()
def distill(shared: Shared, teacher: "Path | None", allow_non_robust: bool, **flags: Any) -> None:
    """Train a lightweight student from a robust teacher.

    Dataset and radius are the teacher's where neither a flag nor --config gives them.
    """
    from compress.cli.stage import inherited, make, settle
    from compress.config import StudentConfig

    if allow_non_robust:
        flags["teacher_floor"] = 0.0
    base = inherited(teacher, ["teacher", "student"], ["data", "threat"]) if teacher else {}
    settled = settle(StudentConfig, "student", shared, flags, base)
    make("compress.distill", settled, {"teacher": teacher} if teacher else {}, shared)
