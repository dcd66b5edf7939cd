"""The student stage: a lightweight network trained against a frozen teacher."""

import functools
from dataclasses import dataclass
from pathlib import Path

from compress import names
from compress.config import StudentConfig
from compress.folders import Folders, lineage, plan_of, read_role
from compress.methods import registry
from edge.core import artifact
from edge.core.artifact import Plan, Stage
from edge.core.errors import CompressError
from edge.core.proportions import clopper_pearson
from edge.validity.rules import fired_checks


@dataclass(frozen=True)
class StudentInputs:
    """Folders of the teachers that the student's method asks; none is given to a method that needs none.

    Several as `teacher` are one teacher whose scores are the mean of theirs, each of them as robust as one must be.
    `clean_teacher` need not be robust.
    """

    teacher: Folders = ()
    clean_teacher: "Path | str | None" = None


def plan(config: StudentConfig, inputs: StudentInputs) -> Plan:
    """What decides the result."""
    return plan_of("student", config, _read(config, inputs))


def run(config: StudentConfig, inputs: StudentInputs, out: "Path | str", *, replace: bool = False) -> Stage:
    """Train a student into `out`."""
    from compress import training
    from compress.numerics import ranks
    from compress.stages.network_training import train_network

    stages = _read(config, inputs)
    make = functools.partial(train_network, "student", config, stages)
    keep = training.kept(config)
    return ranks.build(
        out, plan_of("student", config, stages), make, lineage=lineage(config, stages), keep=keep, replace=replace
    )


def _read(config: StudentConfig, inputs: StudentInputs) -> dict[str, Stage]:
    if not registry.needs_teacher(config.method, config.options):
        return _read_clean(config, inputs.clean_teacher)
    if not inputs.teacher:
        raise CompressError(f"method {names.written(config.method)} needs a teacher; give --teacher FOLDER")
    teachers = read_role("teacher", inputs.teacher, ("teacher", "student"))
    for teacher in teachers.values():
        _refuse_non_robust(teacher, config.teacher_floor)
    return {**teachers, **_read_clean(config, inputs.clean_teacher)}


def _read_clean(config: StudentConfig, folder: "Path | str | None") -> dict[str, Stage]:
    """The second teacher, trained on clean images, of the methods that have one."""
    method = names.written(config.method)
    if not registry.needs_clean_teacher(config.method, config.options):
        if folder is not None:
            raise CompressError(f"{folder}: method {method} has no second teacher; leave --clean-teacher out")
        return {}
    if folder is None:
        raise CompressError(
            f"method {method} needs a second teacher, trained on clean images; give --clean-teacher FOLDER"
        )
    return {"clean_teacher": artifact.read(folder, ("teacher", "student"))}


def _refuse_non_robust(teacher: Stage, floor: float) -> None:
    """A teacher that is not robust, was never measured, or whose figure is not to be trusted, teaches no robustness."""
    test = teacher.metrics.get("test")
    if floor == 0:
        return
    if test is None:
        raise CompressError(
            f"{teacher.path}: its robustness was never measured; import it with --data and without --no-check, or give "
            f"--allow-non-robust"
        )
    figure = (
        f"{teacher.path}: {test['robust']:.1%} robust accuracy under {test['attack'].upper()} at eps {test['eps']} "
        f"(n={test['n']})"
    )
    if test["robust"] < floor:
        raise CompressError(f"{figure}, a teacher needs {floor:.0%}; take a robust one, or give --allow-non-robust")
    low, _ = clopper_pearson(round(test["robust"] * test["n"]), test["n"])
    chance = teacher.metrics.get("chance", 0.0)
    if low <= chance:
        raise CompressError(
            f"{figure} is not above chance: a constant classifier is right on {chance:.1%}, the 95 % interval begins "
            f"at {low:.1%}; take a robust one, measure it on more images, or give --allow-non-robust"
        )
    fired = fired_checks(teacher.metrics)
    if fired:
        raise CompressError(
            f"{figure} is not to be trusted, its checks fired: {', '.join(fired)} (what they saw stands in its "
            f"manifest); mend the network, or give --allow-non-robust"
        )
