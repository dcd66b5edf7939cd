"""Everything that a gate asks of a verified folder: requirements, alarms, a comparison with a baseline."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.core.errors import CompressError
from edge.statement import compare, compare_text, gate, statement
from edge.statement.compare import MARGIN_POINTS, Judged
from edge.statement.gate import Outcome, Requirement
from edge.statement.gate_formats import FAILED, PASSED, SKIPPED, Case

REQUIREMENT, ALARM, STATE = "requirement", "alarm", "machine state"


@dataclass(frozen=True)
class Terms:
    """What is asked. `strict`: an inconclusive comparison fails too, and so does a machine in a state of no trust."""

    requirements: "tuple[Requirement, ...]" = ()
    allow: "frozenset[str]" = frozenset()
    baseline: "Judged | None" = None
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
    ) -> "Terms":
        """As a user writes them; everything that can be refused is refused here, before any work."""
        if against is None and margin is not None:
            raise CompressError("--margin is about a comparison; give --against BASELINE too")
        points = MARGIN_POINTS if margin is None else margin
        if not 0 <= points < math.inf or points > 100:
            raise CompressError(f"--margin {points:g}: percentage points are from 0 to 100; write 0.5")
        requirements = tuple(gate.parse(text) for text in require)
        return cls(requirements, gate.allowed(allow), Judged.read(against) if against else None, points, strict)


@dataclass(frozen=True)
class Judgement:
    """A verified folder under some terms."""

    stated: Mapping[str, Any]
    terms: Terms
    outcomes: Sequence[Outcome]
    comparison: "Mapping[str, Any] | None"

    @classmethod
    def of(cls, folder: Path, terms: Terms) -> "Judgement":
        stated, found = statement.read(folder), None
        if terms.baseline is not None:
            here = Judged.read(folder)
            found = compare.compare(here, terms.baseline, margin_points=terms.margin_points, allow=terms.allow)
        return cls(stated, terms, gate.judge(stated, terms.requirements, terms.allow), found)

    def lines(self) -> list[str]:
        """For a person: the statement, the comparison, the outcomes."""
        compared = [] if self.comparison is None else compare_text.lines(self.comparison)
        return [statement.text(self.stated), *compared, *(outcome.line() for outcome in self.outcomes)]

    def cases(self, of: str = "") -> list[Case]:
        """For pipelines; `of` goes before every name."""
        compared = (
            [] if self.comparison is None else compare_text.cases(self.comparison, strict=self.terms.strict, of=of)
        )
        return [*requirement_cases(self.outcomes, of), *self._alarms(of), *self._states(of), *compared]

    def _alarms(self, of: str) -> list[Case]:
        """Failed where one fired, is not allowed, and an accuracy is required, whose requirement it fails as well."""
        required = any(outcome.requirement.name in gate.ACCURACIES for outcome in self.outcomes)
        found = []
        for alarm in self.stated["predicate"]["alarms"]:
            passes = alarm["name"] in self.terms.allow
            result = (FAILED if required and not passes else SKIPPED) if alarm["fired"] else PASSED
            why = f"{alarm['meaning']}; allowed" if passes else alarm["meaning"]
            found.append(Case(ALARM, f"{of}{alarm['name']}", result, why))
        return found

    def _states(self, of: str) -> list[Case]:
        """Warnings of the machine's state: failed under `strict` where not allowed."""
        found = []
        for row in self.stated["predicate"].get("warnings", ()):
            passes = row["name"] in self.terms.allow
            why = f"{row['found']}; {'allowed' if passes else row['fix']}"
            found.append(
                Case(STATE, f"{of}{row['name']}", FAILED if self.terms.strict and not passes else SKIPPED, why)
            )
        return found


def requirement_cases(outcomes: Iterable[Outcome], of: str = "") -> list[Case]:
    return [
        Case(REQUIREMENT, f"{of}{outcome.requirement}", PASSED if outcome.passed else FAILED, outcome.why)
        for outcome in outcomes
    ]
