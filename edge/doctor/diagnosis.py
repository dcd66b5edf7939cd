"""What is known not to work, as data, and the rules and targets applied to one machine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edge.doctor.facts import MachineFacts, Rule
from edge.doctor.rules import RULES
from edge.doctor.targets import TARGETS, Capability, TargetDoctor


@dataclass(frozen=True)
class Finding:
    """A rule that holds here. `severity`: broken, or limit."""

    name: str
    severity: str
    says: str
    fix: str
    blocks: tuple[str, ...] = ()

    def as_object(self) -> dict[str, Any]:
        return {"name": self.name, "severity": self.severity, "says": self.says, "fix": self.fix}


@dataclass(frozen=True)
class Diagnosis:
    """`targets`: name → how it can be built and run here. Findings: what is broken before what is only a limit."""

    found: MachineFacts
    targets: Mapping[str, Mapping[str, Capability]]
    findings: tuple[Finding, ...]

    @property
    def broken(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity == "broken")

    def as_object(self) -> dict[str, Any]:
        return {
            **self.found.as_object(),
            "targets": {
                name: {verb: {"can": answer.can, "why": answer.why} for verb, answer in verbs.items()}
                for name, verbs in self.targets.items()
            },
            "findings": [finding.as_object() for finding in self.findings],
        }


def diagnose(
    found: MachineFacts, rules: Sequence[Rule] = RULES, targets: Sequence[TargetDoctor] = TARGETS
) -> Diagnosis:
    """What holds of a machine, by these rules, and what its targets answer; a broken pair keeps those it blocks."""
    findings = [*_findings(found, rules)]
    answers = {target.name: _answers(found, target, findings) for target in targets}
    return Diagnosis(found, answers, tuple(sorted(findings, key=lambda finding: finding.severity)))


def _findings(found: MachineFacts, rules: Sequence[Rule]) -> "list[Finding]":
    """In the order of the rules; an import that fails is no news where a rule before has explained it."""
    made: list[Finding] = []
    for rule in rules:
        if not rule.when(found):
            continue
        severity = "limit" if rule.limit else "broken"
        made.append(Finding(rule.name, severity, rule.says(found), rule.fix(found), rule.blocks))
        known = {name: replace(found.modules[name], works=None) for name in rule.explains if name in found.modules}
        found = replace(found, modules={**found.modules, **known})
    return made


def _answers(found: MachineFacts, target: TargetDoctor, findings: Sequence[Finding]) -> dict[str, Capability]:
    blocked = ", ".join(finding.name for finding in findings if target.name in finding.blocks)
    answers = {"build": target.build(found), "run": target.run(found)}
    if blocked and answers["run"].can == "yes":
        answers["run"] = Capability("no", f"{answers['run'].why}, but {blocked}, see below")
    return answers
