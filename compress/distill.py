"""The student stage: a lightweight network trained against a frozen teacher."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compress import artifact, names
from compress.artifact import Plan, Stage
from compress.config import StudentConfig
from compress.errors import CompressError
from compress.train import plan_training, train


def plan(config: StudentConfig, inputs: Mapping[str, Any]) -> Plan:
    """What decides the result."""
    return plan_training("student", config, _read(config, inputs))


def run(config: StudentConfig, inputs: Mapping[str, Any], out: "Path | str", *, replace: bool = False) -> Stage:
    """Train a student into `out`; `inputs["teacher"]` is a teacher's folder, not read by methods that need none."""
    return train("student", config, _read(config, inputs), out, replace=replace)


def _read(config: StudentConfig, inputs: Mapping[str, Any]) -> dict[str, Stage]:
    if config.method in names.TEACHER_METHODS:
        return {}
    if inputs.get("teacher") is None:
        raise CompressError(f"method {config.method} needs a teacher; give --teacher FOLDER")
    return {"teacher": artifact.read(inputs["teacher"], ("teacher", "student"))}
