"""The quantized stage: INT8 ranges found, then fine-tuned through the quantizers, or layers left in floating point."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress import names
from compress.config import QuantizeConfig
from compress.folders import Folders, code_of, lineage, numbered, plan_of, read_role
from compress.methods import registry
from edge.core import artifact
from edge.core.artifact import Plan, Stage
from edge.core.errors import CompressError


@dataclass(frozen=True)
class QuantizeInputs:
    """The student's folder (an imported teacher may stand there too), and its teachers' for the fine-tuning.

    Teachers that the method needs and that are not given are looked for where the student's manifest says they lay.
    """

    student: "Path | str"
    teacher: Folders = ()
    clean_teacher: "Path | str | None" = None


def plan(config: QuantizeConfig, inputs: QuantizeInputs) -> Plan:
    """What decides the result."""
    return plan_of("quantized", config, _read(config, inputs))


def run(config: QuantizeConfig, inputs: QuantizeInputs, out: "Path | str", *, replace: bool = False) -> Stage:
    """Quantize the student into `out`, fine-tuned in `qat` mode by its own method or the configured one."""
    from compress import training
    from compress.stages.network_quantization import quantize_student

    stages = _read(config, inputs)
    return artifact.build(
        out,
        plan_of("quantized", config, stages),
        functools.partial(quantize_student, config, stages),
        lineage=lineage(config, stages) | code_of(stages["student"]),
        keep=training.kept(config),
        replace=replace,
    )


def _read(config: QuantizeConfig, inputs: QuantizeInputs) -> dict[str, Stage]:
    student = artifact.read(inputs.student, ("student", "teacher"))
    stages = {"student": student}
    if config.mode == "ptq":
        return stages
    method, options = fine_tuning_method(config, student)
    asked: list[tuple[str, bool, Folders | None]] = [
        ("teacher", registry.needs_teacher(method, options), inputs.teacher),
        ("clean_teacher", registry.needs_clean_teacher(method, options), inputs.clean_teacher),
    ]
    for role, needed, named in asked:
        if not needed:
            continue
        where = named or [student.input_path(member) for member in numbered(role, student.manifest["lineage"])]
        if not where:
            raise CompressError(
                f"method {names.written(method)} needs a {role.replace('_', ' ')}, {student.path} was made without; "
                f"give --{role.replace('_', '-')} FOLDER"
            )
        stages |= read_role(role, where, ("teacher", "student"))
    return stages


def fine_tuning_method(config: QuantizeConfig, student: Stage) -> "tuple[str | list[str], dict[str, Any]]":
    """The objective of the fine-tuning and its options: the configured one, or the student's own."""
    if config.method is not None:
        return config.method, config.options
    if "method" not in student.config:
        raise CompressError(
            f"{student.path}: was imported, so no method to fine-tune it by is known; give --method, e.g. pgd-at, or "
            f"--mode ptq"
        )
    return student.config["method"], student.config["options"]
