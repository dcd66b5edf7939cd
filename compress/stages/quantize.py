"""The quantized stage: INT8 ranges found, then fine-tuned through the quantizers, or layers left in floating point."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from compress import names, networks
from compress.config import QuantizeConfig
from compress.folders import Folders, code_of, lineage, numbered, plan_of, read_role
from compress.methods import registry
from edge.core import artifact
from edge.core.artifact import Plan, Stage
from edge.core.errors import CompressError


@dataclass(frozen=True)
class QuantizeInputs:
    """The student's folder (an imported teacher or an adopted file may stand there too) or an ONNX file, and its
    teachers' folders for the fine-tuning.

    Teachers that the method needs and that are not given are looked for where the student's manifest says they lay.
    """

    student: "Path | str"
    teacher: Folders = ()
    clean_teacher: "Path | str | None" = None


def plan(config: QuantizeConfig, inputs: QuantizeInputs) -> Plan:
    """What decides the result."""
    return _plan(config, inputs, _read(config, inputs))


def run(config: QuantizeConfig, inputs: QuantizeInputs, out: "Path | str", *, replace: bool = False) -> Stage:
    """Quantize the student into `out`, fine-tuned in `qat` mode by its own method or the configured one."""
    from compress import training
    from compress.stages.network_quantization import quantize_student

    stages, file = _read(config, inputs), _file(inputs)
    before = {"student": file} if file else code_of(stages["student"])
    return artifact.build(
        out,
        _plan(config, inputs, stages),
        functools.partial(quantize_student, config, stages, file),
        lineage=lineage(config, stages) | before,
        keep=training.kept(config),
        replace=replace,
    )


def _file(inputs: QuantizeInputs) -> "Path | None":
    """The ONNX file that is quantized; None where it is a stage."""
    return networks.graph_path(str(inputs.student)) if networks.is_graph_file(inputs.student) else None


def _plan(config: QuantizeConfig, inputs: QuantizeInputs, stages: Mapping[str, Stage]) -> Plan:
    plan, file = plan_of("quantized", config, stages), _file(inputs)
    return replace(plan, inputs={"student": networks.graph_sha256(file), **plan.inputs}) if file else plan


def _read(config: QuantizeConfig, inputs: QuantizeInputs) -> dict[str, Stage]:
    student = None if _file(inputs) else artifact.read(inputs.student, ("student", "teacher", "exported"))
    if student is not None and student.kind == "exported" and "adopted" not in student.config:
        raise CompressError(
            f"{student.path}: is exported already; quantize the stage that it was made from, "
            f"{student.input_path('model')}"
        )
    stages = {} if student is None else {"student": student}
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
        before = {} if student is None else student.manifest["lineage"]
        where = named or [stages["student"].input_path(member) for member in numbered(role, before)]
        if not where:
            raise CompressError(
                f"method {names.written(method)} needs a {role.replace('_', ' ')}, {inputs.student} was made without; "
                f"give --{role.replace('_', '-')} FOLDER"
            )
        stages |= read_role(role, where, ("teacher", "student"))
    return stages


def fine_tuning_method(config: QuantizeConfig, student: "Stage | None") -> "tuple[str | list[str], dict[str, Any]]":
    """The objective of the fine-tuning and its options: the configured one, or the student's own."""
    if config.method is not None:
        return config.method, config.options
    if student is None or "method" not in student.config:
        raise CompressError(
            f"{student.path if student else 'an ONNX file'}: was imported, so no method to fine-tune it by is known; "
            f"give --method, e.g. pgd-at, or --mode ptq"
        )
    return student.config["method"], student.config["options"]
