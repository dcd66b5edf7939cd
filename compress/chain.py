"""The whole chain of a run: its stages and where each lies, how each stands, making what is missing, judging.

RUN/teacher, RUN/clean-teacher, RUN/baselines/NAME, RUN/student, RUN/quantized, RUN/exported/TARGET,
RUN/exported/TARGET-float, RUN/attack-set, RUN/verified/TARGET-DEVICE, RUN/verified/TARGET-float-DEVICE
"""

import importlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress import config, networks, report
from compress.folders import own_source
from compress.methods import registry
from compress.stages.attack import AttackInputs
from compress.stages.distill import StudentInputs
from compress.stages.quantize import QuantizeInputs
from compress.stages.teacher import TeacherInputs
from compress.stages.teacher_import import ImportInputs
from edge.core import artifact, errors, targets
from edge.core.errors import CompressError
from edge.core.progress import say
from edge.statement import statement
from edge.statement.gate import Outcome, judge_requirements, parse_requirement
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
    """The stages of a run in the order they are made; each teacher only when it is shipped or a student asks it."""
    students = {f"baselines/{name}": section for name, section in run.baselines.items()}
    students |= {} if run.student is None else {"student": run.student}
    taught = {name: _teachers(section.method, section.options) for name, section in students.items()}
    tuned = _tuned(run)
    asked = {role for roles in [*taught.values(), tuned, [_shipped_network(run)]] for role in roles}
    sections = {"teacher": run.teacher, "clean_teacher": run.clean_teacher}
    chain = [_obtained(run, root, TEACHERS[role], section) for role, section in sections.items() if role in asked]
    for name, section in students.items():
        settled = run.stage(config.StudentConfig, section)
        guided = StudentInputs(**_folders(root, taught[name]))
        chain.append(Step(name, "student", "compress.stages.distill", settled, guided, root))
    if run.quantize is not None:
        tuning = run.stage(config.QuantizeConfig, run.quantize)
        refined = QuantizeInputs(root / _shipped_network(run), **_folders(root, tuned))
        chain.append(Step("quantized", "quantized", "compress.stages.quantize", tuning, refined, root))
    return [*chain, *_deployed(run, root)]


def _shipped_network(run: config.Run) -> str:
    """The step of the float network that is quantized and shipped."""
    return "teacher" if run.student is None else "student"


def _folders(root: Path, teachers: Iterable[str]) -> dict[str, Any]:
    """The folders of those teachers in a run, as a stage's inputs name them."""
    return {role: root / TEACHERS[role] for role in teachers}


def _tuned(run: config.Run) -> list[str]:
    """The teachers that the quantized network's fine-tuning asks."""
    if run.quantize is None or run.quantize.mode == "ptq":
        return []
    if run.quantize.method is not None:
        return _teachers(run.quantize.method, run.quantize.options)
    if isinstance(own := run.student or run.teacher, config.Imported):
        raise CompressError(
            "quantize: the imported teacher is shipped (student: null), and no method to fine-tune it by is known; add "
            "method, e.g. pgd-at, or mode: ptq"
        )
    return _teachers(own.method, own.options)


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
    """What is exported, attacked and verified: every target, and the float network beside the quantized one."""
    network = _shipped_network(run)
    twins = dict.fromkeys(run.targets, network if run.quantize is None else "quantized")
    if run.quantize is not None and run.compare_float:
        twins |= {f"{target}-float": network for target in run.targets}
    for label, twin in twins.items():
        integer = run.quantize is not None and not label.endswith("-float")
        section = run.export
        if run.quantize is not None and integer != (section.precision in ("auto", "int8")):
            section = section.model_copy(update={"precision": "auto"})  # it was asked of the other of the two files
        emitting = run.stage(config.ExportConfig, section, target=label.removesuffix("-float"))
        yield Step(f"exported/{label}", "exported", "export.stage", emitting, ExportInputs(root / twin), root)

    attacked = AttackInputs(
        student=root / network,
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
    reached = {step.name for step in chain if step.name == start or step.name.startswith(f"{start}/")}
    if not reached:
        known = [step.name for step in chain]
        raise CompressError(
            f"no stage {start!r} in this run{errors.nearest_name(start, known)} (stages: {', '.join(known)})"
        )
    for step in chain:  # in the order they are made, so one pass reaches all
        if reached.intersection(step.needs):
            reached.add(step.name)
    return frozenset(reached)


# ------------------------------------------------------------------------------ how the stages stand

NONE: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Standing:
    """How a step stands: `complete`, `stale`, `resumes` or `to do`; `why` says what made it stale."""

    step: Step
    state: str
    why: str = ""

    @property
    def complete(self) -> bool:
        return self.state == "complete"


def survey(chain: Sequence[Step], anew: frozenset[str] = NONE) -> list[Standing]:
    """How every step stands, nothing made. Raises as `look` does, so that nothing is made before a fault is told."""
    states: dict[str, Standing] = {}
    for step in chain:
        model = getattr(step.config, "model", "")
        own_source(model), networks.graph_path(model)  # what is not there is told before the first stage
        waits = next((name for name in step.needs if not states[name].complete), None)
        if step.name in anew or waits is None:
            states[step.name] = look(step, anew)
        elif _stands(step):
            states[step.name] = Standing(step, "stale", f"{waits} is made anew")
        else:
            states[step.name] = Standing(step, "to do")
    return list(states.values())


def _stands(step: Step) -> bool:
    """Whether a sound stage of the step's kind is there; anything else there raises."""
    return step.folder.exists() and bool(artifact.read(step.folder, (step.kind,)))


def look(step: Step, anew: frozenset[str] = NONE) -> Standing:
    """How one step stands, its inputs being complete. A damaged folder, or one of another kind, raises.

    Steps named in `anew` are not read, so that a damaged one can be made anew.
    """
    if step.name in anew:
        return Standing(step, "stale", "to be made anew") if step.folder.exists() else Standing(step, "to do")
    _stands(step)
    status = artifact.status(step.folder, importlib.import_module(step.module).plan(step.config, step.inputs))
    return Standing(step, {"partial": "resumes", "absent": "to do"}.get(status.state, status.state), status.why)


def lines(states: Sequence[Standing]) -> list[str]:
    """One line a step: `teacher  complete  runs/x/teacher`, `student  stale (config.method: 'rslad' → 'vgap')`."""
    width = max(len(state.step.name) for state in states)
    return [f"{state.step.name:<{width}}  {_standing(state)}" for state in states]


def _standing(state: Standing) -> str:
    if state.complete:
        return f"complete  {state.step.folder}"
    return f"{state.state} ({state.why})" if state.why else state.state


def make(step: Step, anew: frozenset[str] = NONE) -> bool:
    """Make one step unless it is complete; whether it was made. An older stage stays until the new one is complete."""
    if look(step, anew).complete:
        return False
    say(f"making {step.name}")
    token = artifact.ANEW.set(step.name in anew)
    try:
        run = importlib.import_module(step.module).run
        run(step.config, step.inputs, step.folder, replace=True)
    finally:
        artifact.ANEW.reset(token)
    return True


# ------------------------------------------------------------------------------------------- the run

REPORT = "report.html"


@dataclass(frozen=True)
class Result:
    """A finished run: its stages by name, the names of those just made, and the judged requirements."""

    root: Path
    stages: Mapping[str, artifact.Stage]
    made: tuple[str, ...]
    shipped: str  # the verified stage that the requirements were judged on
    outcomes: Sequence[Outcome]
    report: Path
    seconds: float


def run(settled: config.Run, root: Path, *, start: "str | None" = None) -> Result:
    """Bring the run at `root` up to date and judge its requirements.

    Everything from the step named `start` on is made anew, complete or not. The report is written again when a stage
    was made or when it is absent; the requirements are judged always. Progress goes to stderr.
    """
    began = time.monotonic()
    requirements = [parse_requirement(text) for text in settled.require]
    verified = shipped(settled)
    chain = steps(settled, root)
    anew = downstream(chain, start) if start else NONE
    for line in lines(survey(chain, anew)):
        say(line)
    made = tuple(step.name for step in chain if make(step, anew))
    stages = {step.name: artifact.read(step.folder) for step in chain}
    outcomes = judge_requirements(statement.read_statement(stages[verified].file(statement.STATEMENT)), requirements)
    if made or not (root / REPORT).exists():
        report.write(root, require=settled.require)
    return Result(root, stages, made, verified, outcomes, root / REPORT, time.monotonic() - began)
