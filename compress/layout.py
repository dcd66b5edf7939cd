"""The stages of a run and where each lies in its folder.

RUN/teacher, RUN/clean-teacher, RUN/baselines/NAME, RUN/student, RUN/quantized, RUN/exported/TARGET,
RUN/exported/TARGET-float, RUN/attack-set, RUN/verified/TARGET-DEVICE, RUN/verified/TARGET-float-DEVICE
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress import config
from compress.methods import registry
from compress.stages.attack import AttackInputs
from compress.stages.distill import StudentInputs
from compress.stages.quantize import QuantizeInputs
from compress.stages.teacher import TeacherInputs
from compress.stages.teacher_import import ImportInputs
from edge.core import errors, targets
from edge.core.errors import CompressError
from edge.verify.verify import VerifyInputs
from export.stage import ExportInputs

#: A method's teacher → name of its step.
TEACHERS = {"teacher": "teacher", "clean_teacher": "clean-teacher"}


@dataclass(frozen=True)
class Step:
    """One stage of the run in `root`, at ROOT/name: the module that makes it, its config and its typed inputs."""

    name: str
    kind: str
    module: str
    config: Any
    inputs: Any
    root: Path

    @property
    def folder(self) -> Path:
        return self.root / self.name

    @property
    def needs(self) -> list[str]:
        """The names of all steps that this one reads: those whose folders are among its inputs."""
        values = vars(self.inputs).values()
        folders = [path for value in values for path in (value if isinstance(value, tuple) else (value,))]
        return [path.relative_to(self.root).as_posix() for path in folders if isinstance(path, Path)]


def steps(run: config.Run, root: Path) -> list[Step]:
    """The stages of a run in the order they are made; each teacher only when a student learns from it."""
    students = {**{f"baselines/{name}": section for name, section in run.baselines.items()}, "student": run.student}
    taught = {name: _teachers(section.method, section.options) for name, section in students.items()}
    tuned = _tuned(run)
    asked = {role for roles in [*taught.values(), tuned] for role in roles}
    sections = {"teacher": run.teacher, "clean_teacher": run.clean_teacher}
    chain = [_obtained(run, root, TEACHERS[role], section) for role, section in sections.items() if role in asked]
    for name, section in students.items():
        settled = run.stage(config.StudentConfig, section)
        guided = StudentInputs(**_folders(root, taught[name]))
        chain.append(Step(name, "student", "compress.stages.distill", settled, guided, root))
    if run.quantize is not None:
        tuning = run.stage(config.QuantizeConfig, run.quantize)
        refined = QuantizeInputs(root / "student", **_folders(root, tuned))
        chain.append(Step("quantized", "quantized", "compress.stages.quantize", tuning, refined, root))
    return [*chain, *_deployed(run, root)]


def _folders(root: Path, teachers: Iterable[str]) -> dict[str, Any]:
    """The folders of those teachers in a run, as a stage's inputs name them."""
    return {role: root / TEACHERS[role] for role in teachers}


def _tuned(run: config.Run) -> list[str]:
    """The teachers that the quantized network's fine-tuning asks."""
    if run.quantize is None or run.quantize.mode == "ptq":
        return []
    if run.quantize.method is not None:
        return _teachers(run.quantize.method, run.quantize.options)
    return _teachers(run.student.method, run.student.options)


def _obtained(run: config.Run, root: Path, name: str, section: "config.Teacher | config.Imported") -> Step:
    """A teacher, trained or imported."""
    if isinstance(section, config.Imported):
        imported = run.stage(config.ImportConfig, section)
        return Step(name, "teacher", "compress.stages.teacher_import", imported, ImportInputs(), root)
    trained = run.stage(config.TeacherConfig, section)
    return Step(name, "teacher", "compress.stages.teacher", trained, TeacherInputs(), root)


def _teachers(method: "str | Sequence[str]", options: Mapping[str, Any]) -> list[str]:
    """The teachers that a method asks."""
    asked = {
        "teacher": registry.needs_teacher(method, options),
        "clean_teacher": registry.needs_clean_teacher(method, options),
    }
    return [role for role, needed in asked.items() if needed]


def _deployed(run: config.Run, root: Path) -> Iterator[Step]:
    """What is exported, attacked and verified: every target, and the float student beside the quantized one."""
    twins = dict.fromkeys(run.targets, "student" if run.quantize is None else "quantized")
    if run.quantize is not None and run.compare_float:
        twins |= {f"{target}-float": "student" for target in run.targets}
    for label, twin in twins.items():
        integer = run.quantize is not None and not label.endswith("-float")
        section = run.export
        if run.quantize is not None and integer != (section.precision in ("auto", "int8")):
            section = section.model_copy(update={"precision": "auto"})  # it was asked of the other of the two files
        emitting = run.stage(config.ExportConfig, section, target=label.removesuffix("-float"))
        yield Step(f"exported/{label}", "exported", "export.stage", emitting, ExportInputs(root / twin), root)

    attacked = AttackInputs(
        student=root / "student",
        quantized=root / "quantized" if "quantized" in twins.values() else None,
        exported=tuple(root / f"exported/{label}" for label in twins),
    )
    attacking = run.stage(config.AttackConfig, run.attack)
    yield Step("attack-set", "attack-set", "compress.stages.attack", attacking, attacked, root)

    for label in twins:
        for device in run.devices:
            if label.removesuffix("-float") in targets.executed_by(device):
                executing = run.stage(config.VerifyConfig, run.verify, device=device).semantic()
                judged = VerifyInputs(root / f"exported/{label}", root / "attack-set")
                yield Step(f"verified/{label}-{device}", "verified", "compress.stages.verify", executing, judged, root)


def shipped(run: config.Run) -> str:
    """The verified step that a run's requirements are judged on: the first target that a device executes."""
    for target in run.targets:
        for device in run.devices:
            if target in targets.executed_by(device):
                return f"verified/{target}-{device}"
    raise CompressError(
        f"devices: {', '.join(run.devices)} executes none of the targets ({', '.join(run.targets)}), so nothing would "
        f"be verified; add a device that does, or the target {targets.DEFAULT.name}"
    )


def downstream(chain: Sequence[Step], start: str) -> frozenset[str]:
    """Names of the steps at `start` (`student`, `baselines/rslad`, `exported` for all) and of all that need them."""
    found = {step.name for step in chain if step.name == start or step.name.startswith(f"{start}/")}
    if not found:
        known = [step.name for step in chain]
        raise CompressError(
            f"no stage {start!r} in this run{errors.nearest_name(start, known)} (stages: {', '.join(known)})"
        )
    for step in chain:  # in the order they are made, so one pass reaches all
        if found.intersection(step.needs):
            found.add(step.name)
    return frozenset(found)
