"""`compress teacher train`."""

from typing import Any

import click

from compress.cli.lazy import Verb
from compress.cli.options import (
    MODEL,
    Name,
    Shared,
    extra_option,
    pace_options,
    stage_options,
    teacher_method_names,
    training_options,
)


@click.command(
    cls=Verb,
    processes=True,
    examples=[
        "compress teacher train --data digits --model wrn-10-4 --out runs/teacher",
        "compress teacher train --data digits --method pgd-at --epochs 30 --set attack.steps=5 --out runs/teacher",
        "compress teacher train --data cifar10 --model resnet18 --method trades --budget 8h --out runs/teacher",
    ],
)
@click.option("--model", type=MODEL, help="Architecture.")
@click.option("--method", type=Name("method", teacher_method_names()), help="Objective it is trained with.")
@extra_option
@training_options
@pace_options
@stage_options()
def train(shared: Shared, **flags: Any) -> None:
    """Train a teacher from scratch.

    What is not given comes from --config, else from the defaults; `compress init` lists all keys.
    """
    from compress.cli.stage import place, settle, show
    from compress.config import TeacherConfig
    from compress.stages import teacher

    settled = settle(TeacherConfig, "teacher", shared, flags)
    out, complete = place(shared)
    show(teacher.run(settled, teacher.TeacherInputs(), out), complete, shared)
