"""`compress distill`."""

from pathlib import Path
from typing import Any

import click

from compress import names
from compress.cli.main import Verb
from compress.cli.options import (
    ARCHITECTURE,
    FOLDER,
    METHOD,
    MODEL,
    Shared,
    extra_option,
    pace_options,
    stage_options,
    start_options,
    training_options,
)


@click.command(
    cls=Verb,
    processes=True,
    examples=[
        "compress distill --teacher runs/teacher --student resnet8 --data digits --method vgap --out runs/student",
        "compress distill --teacher runs/teacher --clean-teacher runs/clean --method mtard --out runs/student",
        "compress distill --data digits --method normal --out runs/not-robust",
        "compress distill --teacher runs/teacher --student mynets:small --weights start.pt --out runs/student",
    ],
)
@click.option(
    "--teacher",
    "teachers",
    type=FOLDER,
    multiple=True,
    metavar="DIR",
    help="Teacher stage; given several times, the mean of their scores teaches. Not for methods that need none "
    f"({', '.join(names.TEACHER_METHODS)}).",
)
@click.option(
    "--clean-teacher",
    type=FOLDER,
    metavar="DIR",
    help=f"Second teacher, trained on clean images; for {', '.join(names.CLEAN_TEACHER_METHODS)}.",
)
@click.option("--student", "model", type=MODEL, help=f"Architecture of the student: {ARCHITECTURE}.")
@start_options
@click.option("--method", type=METHOD, help="Objective it is trained with, or several: adaad,vgap.")
@click.option("--floor", "teacher_floor", type=float, help="Robust accuracy the teacher must have; default 0.2.")
@click.option("--allow-non-robust", is_flag=True, help="Learn from any teacher: the same as --floor 0.")
@extra_option
@training_options
@pace_options
@stage_options()
def distill(
    shared: Shared, teachers: tuple[Path, ...], clean_teacher: "Path | None", allow_non_robust: bool, **flags: Any
) -> None:
    """Train a lightweight student from a robust teacher.

    Dataset and radius are the teacher's where neither a flag nor --config gives them.
    """
    from compress.cli.stage import inherited, place, settle, show
    from compress.config import StudentConfig
    from compress.stages import distill as stage

    if allow_non_robust:
        flags["teacher_floor"] = 0.0
    base = inherited(teachers[0], ["teacher", "student"], ["data", "threat"]) if teachers else {}
    settled = settle(StudentConfig, "student", shared, flags, base)
    out, complete = place(shared)
    show(stage.run(settled, stage.StudentInputs(teachers, clean_teacher), out), complete, shared)
