"""The whole chain of a run: how each stage stands, making what is missing or stale, judging what is shipped."""

import importlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from compress import config, layout, report
from compress.layout import Step
from edge.core import artifact
from edge.core.progress import say
from edge.statement import statement
from edge.statement.gate import Outcome, judge_requirements, parse_requirement

REPORT = "report.html"
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
    shipped = layout.shipped(settled)
    chain = layout.steps(settled, root)
    anew = layout.downstream(chain, start) if start else NONE
    for line in lines(survey(chain, anew)):
        say(line)
    made = tuple(step.name for step in chain if make(step, anew))
    stages = {step.name: artifact.read(step.folder) for step in chain}
    outcomes = judge_requirements(statement.read_statement(stages[shipped].file(statement.STATEMENT)), requirements)
    if made or not (root / REPORT).exists():
        report.write(root, require=settled.require)
    return Result(root, stages, made, shipped, outcomes, root / REPORT, time.monotonic() - began)
