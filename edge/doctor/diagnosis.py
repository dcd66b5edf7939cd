"""Rules and targets applied to one machine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edge.core import targets
from edge.core.errors import CompressError
from edge.core.targets import Target
from edge.doctor.facts import Capability, MachineFacts, Rule, TargetDoctor
from edge.doctor.rules import RULES


@dataclass(frozen=True)
class Finding:
    """A rule that holds here. `severity`: broken, or limit."""

    name: str
    severity: str
    says: str
    fix: str

    def as_object(self) -> dict[str, Any]:
        return {"name": self.name, "severity": self.severity, "says": self.says, "fix": self.fix}


@dataclass(frozen=True)
class MachineDiagnosis:
    """`targets`: name → how it can be built and run here. Findings: what is broken before what is only a limit."""

    facts: MachineFacts
    targets: Mapping[str, Mapping[str, Capability]]
    findings: tuple[Finding, ...]

    @property
    def broken(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity == "broken")

    def as_object(self) -> dict[str, Any]:
        return {
            **self.facts.as_object(),
            "targets": {
                name: {verb: {"can": answer.can, "why": answer.why} for verb, answer in verbs.items()}
                for name, verbs in self.targets.items()
            },
            "findings": [finding.as_object() for finding in self.findings],
        }


def diagnose(facts: MachineFacts, known: Sequence[Target], shown: "Sequence[Target] | None" = None) -> MachineDiagnosis:
    """What holds of a machine by the rules of the `known` targets, and what those that are `shown` can do on it."""
    doctors = {target.name: _doctor(target) for target in known}
    findings = _findings(facts, [*dict.fromkeys(rule for doctor in doctors.values() for rule in doctor.rules), *RULES])
    answers = {target.name: _answers(facts, doctors[target.name], findings) for target in shown or known}
    return MachineDiagnosis(facts, answers, tuple(sorted(findings, key=lambda finding: finding.severity)))


def _doctor(target: Target) -> TargetDoctor:
    doctor = targets.doctor_of(target)
    if not isinstance(doctor, TargetDoctor):
        raise CompressError(
            f"target {target.name!r}: its doctor {target.doctor} is no edge.doctor.TargetDoctor; mend it"
        )
    return doctor


def _findings(facts: MachineFacts, rules: Sequence[Rule]) -> "list[Finding]":
    """In the order of the rules; an import that fails is no news where a rule before has explained it."""
    findings: list[Finding] = []
    for rule in rules:
        if not rule.when(facts):
            continue
        severity = "limit" if rule.limit else "broken"
        findings.append(Finding(rule.name, severity, rule.says(facts), rule.fix(facts)))
        known = {name: replace(facts.modules[name], works=None) for name in rule.explains if name in facts.modules}
        facts = replace(facts, modules={**facts.modules, **known})
    return findings


def _answers(facts: MachineFacts, doctor: TargetDoctor, findings: Sequence[Finding]) -> dict[str, Capability]:
    blocked = ", ".join(finding.name for finding in findings if finding.name in doctor.blocked_by)
    answers = {"build": doctor.build(facts), "run": doctor.run(facts)}
    if blocked and answers["run"].can == "yes":
        answers["run"] = Capability("no", f"{answers['run'].why}, but {blocked}, see below")
    return answers
