"""Requirements on a statement, as a release pipeline writes them: `robust>=0.3`, `p99_ms<=2`."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from compress import artifact, names
from compress.errors import CompressError

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
SHARES = ("clean", "robust", "agreement")
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


def parse(text: str) -> Requirement:
    """`robust>=0.3` or `robust >= 30%`."""
    found = re.fullmatch(r"\s*([a-z0-9_]+)\s*(>=|<=|>|<)\s*([0-9.eE+-]+)\s*(%?)\s*", text)
    if not found:
        raise CompressError(f'requirement {text!r} is not understood; write it like "robust>=0.3"')
    name, op, number, percent = found.groups()
    if name not in KNOWN:
        raise CompressError(
            f"requirement {text!r}: unknown {name!r}{names.nearest(name, KNOWN)} (known: {', '.join(KNOWN)})"
        )
    return Requirement(name, op, _value(text, name, number, bool(percent)))


def _value(text: str, name: str, number: str, percent: bool) -> float:
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
    return value


def judge(statement: Mapping[str, Any], requirements: Sequence[Requirement]) -> list[Outcome]:
    """Each requirement against the statement; for accuracies the end of the interval that is against it."""
    return [_judge(statement["predicate"], requirement) for requirement in requirements]


def _judge(predicate: Mapping[str, Any], requirement: Requirement) -> Outcome:
    if requirement.name in ("clean", "robust"):
        figure = predicate["figures"][requirement.name]
        if figure is None:
            return Outcome(requirement, False, None, _only_a_bound(predicate))
        low, high = figure["interval"]
        got, end = (low, "lower") if requirement.op.startswith(">") else (high, "upper")
        why = (
            f"{figure['value']:.4f} on {figure['n']} images, {end} end of its {figure['level']:.0%} interval {got:.4f}"
        )
    elif requirement.name == "agreement" and predicate["agreement"] is None:
        return Outcome(requirement, False, None, "not measured: the attack set does not hold the artifact's twin")
    else:
        got = _plain(predicate, requirement.name)
        why = f"{got:g}"
    return Outcome(requirement, _OPERATORS[requirement.op](got, requirement.value), got, why)


def _only_a_bound(predicate: Mapping[str, Any]) -> str:
    missing = "; ".join(f"({part['part']}) {part['where']}" for part in predicate["protocol"] if not part["covered"])
    return f"only an upper bound of {predicate['figures']['upper_bound']['value']:.4f}, not covered: {missing}"


def _plain(predicate: Mapping[str, Any], name: str) -> float:
    if name == "size_bytes":
        return float(predicate["artifact"]["bytes"])
    if name == "agreement":
        return float(predicate["agreement"]["clean"]["argmax_agreement"])
    return float(predicate["latency"][name])


def junit(outcomes: Sequence[Outcome], path: "Path | str") -> None:
    """The outcomes as JUnit XML, one test case a requirement."""
    failures = sum(not outcome.passed for outcome in outcomes)
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<testsuite name="compress verify" tests="{len(outcomes)}" failures="{failures}">',
    ]
    for outcome in outcomes:
        case = f'<testcase classname="requirement" name={quoteattr(str(outcome.requirement))}'
        failure = f"><failure message={quoteattr(outcome.why)}/></testcase>"
        lines.append(f"  {case}{'/>' if outcome.passed else failure}")
    artifact.write_atomic(Path(path), "\n".join([*lines, "</testsuite>"]) + "\n")
