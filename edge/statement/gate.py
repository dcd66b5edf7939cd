"""What a release pipeline asks of a verified folder: requirements on its statement (`robust>=0.3`, `p99_ms<=2`),
alarms, a comparison with a baseline.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.core import errors
from edge.core.errors import CompressError
from edge.evidence.warnings import WARNINGS
from edge.statement import comparison, statement, wording
from edge.statement.comparison import MARGIN_POINTS, JudgedArtifact
from edge.statement.gate_formats import FAILED, PASSED, SKIPPED, GateCase
from edge.statement.statement import ALARMS, Predicate, Statement

#: name → what it is; accuracies are judged by the cautious end of their interval
KNOWN = {
    "clean": "clean accuracy",
    "robust": "worst-case accuracy over the whole protocol",
    "agreement": "share of predictions equal to the twin's, on clean images",
    "p50_ms": "median latency",
    "p90_ms": "90th percentile of latency",
    "p95_ms": "95th percentile of latency",
    "p99_ms": "99th percentile of latency",
    "images_per_s": "throughput at the measured batch size",
    "size_bytes": "size of the file",
}
ACCURACIES = ("clean", "robust")
SHARES = (*ACCURACIES, "agreement")
_OPERATORS = {
    ">=": lambda got, want: got >= want,
    "<=": lambda got, want: got <= want,
    ">": lambda got, want: got > want,
    "<": lambda got, want: got < want,
}


@dataclass(frozen=True)
class Requirement:
    """`name` compared with `value`."""

    name: str
    op: str
    value: float

    def __str__(self) -> str:
        return f"{self.name}{self.op}{self.value:g}"


@dataclass(frozen=True)
class Outcome:
    """One requirement judged. `got` is None where the statement has no such figure."""

    requirement: Requirement
    passed: bool
    got: "float | None"
    why: str

    def line(self) -> str:
        return f"{'passed' if self.passed else 'FAILED'}  {self.requirement}  ({self.why})"


def parse_requirement(text: str) -> Requirement:
    """`robust>=0.3` or `robust >= 30%`."""
    match = re.fullmatch(r"\s*([a-z0-9_]+)\s*(>=|<=|>|<)\s*([0-9.eE+-]+)\s*(%?)\s*", text)
    if not match:
        raise CompressError(f'requirement {text!r} is not understood; write it like "robust>=0.3"')
    name, op, number, percent = match.groups()
    if name not in KNOWN:
        raise CompressError(
            f"requirement {text!r}: unknown {name!r}{errors.nearest_name(name, KNOWN)} (known: {', '.join(KNOWN)})"
        )
    try:
        value = float(number) / (100 if percent else 1)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise CompressError(f'requirement {text!r}: {number!r} is no number from 0 up; write it like "robust>=0.3"')
    if name in SHARES and value > 1:
        raise CompressError(f"requirement {text!r}: {name} is a share, at most 1; write 0.3 or 30%")
    if percent and name not in SHARES:
        raise CompressError(f"requirement {text!r}: {name} is no share, so it has no %; give the number alone")
    return Requirement(name, op, value)


def allowed_names(names: Sequence[str]) -> frozenset[str]:
    """Names of alarms and of warnings that a user lets pass; an unknown one is refused.

    Of an alarm `twin-disagrees` is `twin disagrees`.
    """
    return frozenset(
        name if name in WARNINGS else errors.known_name("alarm", name.replace("-", " "), ALARMS) for name in names
    )


def judge_requirements(
    stated: Statement, requirements: Sequence[Requirement], allow: "frozenset[str]" = frozenset()
) -> list[Outcome]:
    """Each requirement against the statement; for accuracies the end of the interval that is against it.

    An alarm that fired and is not in `allow` fails every requirement on an accuracy: the figure is not to be trusted.
    """
    raised = [name for name in stated.predicate.fired if name not in allow]
    return [_judge(stated.predicate, requirement, raised) for requirement in requirements]


def _judge(predicate: Predicate, requirement: Requirement, raised: Sequence[str]) -> Outcome:
    if requirement.name in ACCURACIES:
        return _accuracy(predicate, requirement, raised)
    if requirement.name == "agreement":
        if predicate.agreement is None:
            return Outcome(requirement, False, None, "not measured: the attack set does not hold the artifact's twin")
        got = predicate.agreement.clean.argmax_agreement
    else:
        size, latency = predicate.artifact.bytes, predicate.times
        got = float(size if requirement.name == "size_bytes" else getattr(latency, requirement.name))
    return Outcome(requirement, _OPERATORS[requirement.op](got, requirement.value), got, f"{got:g}")


def _accuracy(predicate: Predicate, requirement: Requirement, raised: Sequence[str]) -> Outcome:
    below = requirement.op.startswith("<")
    figures, undecided = predicate.figures, ""
    figure = figures.clean if requirement.name == "clean" else figures.robust
    if figure is None:
        if figures.inconclusive is None or not predicate.is_covered:
            missing = "; ".join(f"({part.part}) {part.where}" for part in predicate.protocol if not part.covered)
            why = f"only an upper bound of {figures.worst.value:.4f}, not covered: {missing}"
            return Outcome(requirement, False, None, why)
        # of an inconclusive figure's two bounds the worse one
        left_open = figures.inconclusive
        taken, figure = ("stand", left_open.if_all_stand) if below else ("fall", left_open.if_all_fall)
        budget = f"{left_open.undecided} images undecided when the budget of {left_open.budget_seconds:g} s ended"
        undecided = f"; inconclusive, {budget}, taken to {taken}"
    low, high = figure.interval
    got, end = (high, "upper") if below else (low, "lower")
    met = _OPERATORS[requirement.op](got, requirement.value)
    chance = figures.chance
    why = f"{figure.value:.4f} on {figure.n} images, {end} end of its {figure.level:.0%} interval {got:.4f}"
    if raised:
        return Outcome(requirement, False, got, f"alarm fired: {', '.join(raised)}; {why}{undecided}")
    if not below and chance is not None and got <= chance.value:
        why = f"not above chance, a constant classifier gets {chance.value:.4f}; {why}"
        return Outcome(requirement, False, got, f"{why}{undecided}")
    return Outcome(requirement, met, got, f"{why}{undecided}")


# --------------------------------------------------------------------------------------------------- a whole judgement


REQUIREMENT, ALARM, STATE = "requirement", "alarm", "machine state"


@dataclass(frozen=True)
class GateTerms:
    """What is asked. `strict`: an inconclusive comparison fails too, and so does a machine in a state of no trust."""

    requirements: "tuple[Requirement, ...]" = ()
    allow: "frozenset[str]" = frozenset()
    baseline: "JudgedArtifact | None" = None
    margin_points: float = MARGIN_POINTS
    strict: bool = False

    @classmethod
    def read(
        cls,
        require: Sequence[str],
        allow: Sequence[str] = (),
        against: "Path | None" = None,
        margin: "float | None" = None,
        strict: bool = False,
    ) -> "GateTerms":
        """As a user writes them; everything that can be refused is refused here, before any work."""
        if against is None and margin is not None:
            raise CompressError("--margin is about a comparison; give --against BASELINE too")
        points = MARGIN_POINTS if margin is None else margin
        if not 0 <= points < math.inf or points > 100:
            raise CompressError(f"--margin {points:g}: percentage points are from 0 to 100; write 0.5")
        requirements = tuple(parse_requirement(text) for text in require)
        return cls(
            requirements, allowed_names(allow), JudgedArtifact.read(against) if against else None, points, strict
        )


@dataclass(frozen=True)
class GateJudgement:
    """A verified folder under some terms."""

    stated: Statement
    terms: GateTerms
    outcomes: Sequence[Outcome]
    comparison: "Mapping[str, Any] | None"

    @classmethod
    def of(cls, folder: Path, terms: GateTerms) -> "GateJudgement":
        stated, compared = statement.read_statement(folder), None
        if terms.baseline is not None:
            here = JudgedArtifact.read(folder)
            compared = comparison.compare_verified(
                here, terms.baseline, margin_points=terms.margin_points, allow=terms.allow
            )
        return cls(stated, terms, judge_requirements(stated, terms.requirements, terms.allow), compared)

    def lines(self) -> list[str]:
        """For a person: the statement, the comparison, the outcomes."""
        compared = [] if self.comparison is None else comparison.comparison_lines(self.comparison)
        return [wording.statement_text(self.stated), *compared, *(outcome.line() for outcome in self.outcomes)]

    def cases(self, of: str = "") -> list[GateCase]:
        """For pipelines; `of` goes before every name."""
        cases, strict = requirement_cases(self.outcomes, of), self.terms.strict
        # An alarm is a failure where it is not allowed and an accuracy is required, whose requirement it fails as well.
        required = any(outcome.requirement.name in ACCURACIES for outcome in self.outcomes)
        for alarm in self.stated.predicate.alarms:
            passes = alarm.name in self.terms.allow
            result = (FAILED if required and not passes else SKIPPED) if alarm.fired else PASSED
            why = f"{alarm.meaning}; allowed" if passes else alarm.meaning
            cases.append(GateCase(ALARM, f"{of}{alarm.name}", result, why))
        for row in self.stated.predicate.warnings or ():
            passes = row.name in self.terms.allow
            why = f"{row.found}; {'allowed' if passes else row.fix}"
            cases.append(GateCase(STATE, f"{of}{row.name}", FAILED if strict and not passes else SKIPPED, why))
        if self.comparison is not None:
            cases += comparison.comparison_cases(self.comparison, strict=strict, of=of)
        return cases


def requirement_cases(outcomes: Iterable[Outcome], of: str = "") -> list[GateCase]:
    return [
        GateCase(REQUIREMENT, f"{of}{outcome.requirement}", PASSED if outcome.passed else FAILED, outcome.why)
        for outcome in outcomes
    ]
