"""The student stage: a lightweight network trained against a frozen teacher."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compress import artifact, names
from compress.artifact import Plan, Stage
from compress.config import StudentConfig
from compress.errors import CompressError
from compress.stages import plan_of
from compress.train import train


def plan(config: StudentConfig, inputs: Mapping[str, Any]) -> Plan:
    """What decides the result."""
    return plan_of("student", config, _read(config, inputs))


def run(config: StudentConfig, inputs: Mapping[str, Any], out: "Path | str", *, replace: bool = False) -> Stage:
    """Train a student into `out`; `inputs["teacher"]` is a teacher's folder, not read by methods that need none."""
    return train("student", config, _read(config, inputs), out, replace=replace)


def _read(config: StudentConfig, inputs: Mapping[str, Any]) -> dict[str, Stage]:
    if config.method in names.TEACHER_METHODS:
        return {}
    if inputs.get("teacher") is None:
        raise CompressError(f"method {config.method} needs a teacher; give --teacher FOLDER")
    teacher = artifact.read(inputs["teacher"], ("teacher", "student"))
    _refuse_non_robust(teacher, config.teacher_floor)
    return {"teacher": teacher}


def _refuse_non_robust(teacher: Stage, floor: float) -> None:
    """A teacher that is not robust, or was never measured, teaches no robustness."""
    test = teacher.metrics.get("test")
    if floor == 0 or (test is not None and test["robust"] >= floor):
        return
    if test is None:
        raise CompressError(
            f"{teacher.path}: its robustness was never measured; import it with --data and without --no-check, or give "
            f"--allow-non-robust"
        )
    raise CompressError(
        f"{teacher.path}: {test['robust']:.1%} robust accuracy under {test['attack'].upper()} at eps "
        f"{test['eps']} (n={test['n']}), a teacher needs {floor:.0%}; take a robust one, or give --allow-non-robust"
    )
