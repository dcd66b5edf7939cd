"""Rules and targets applied to one machine, and what they come to, for people."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edge.core import targets
from edge.core.errors import CompressError
from edge.core.targets import Target
from edge.doctor.facts import Capability, MachineFacts, TargetDoctor
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
    doctors: dict[str, TargetDoctor] = {}
    for target in known:
        doctor = doctors[target.name] = targets.doctor_of(target)
        if not isinstance(doctor, TargetDoctor):
            raise CompressError(
                f"target {target.name!r}: its doctor {target.doctor} is no edge.doctor.TargetDoctor; mend it"
            )
    findings: list[Finding] = []
    unexplained = facts  # an import that fails is no news where a rule before has explained it
    for rule in [*dict.fromkeys(rule for doctor in doctors.values() for rule in doctor.rules), *RULES]:
        if rule.when(unexplained):
            severity = "limit" if rule.limit else "broken"
            findings.append(Finding(rule.name, severity, rule.says(unexplained), rule.fix(unexplained)))
            modules = unexplained.modules
            explained = {name: replace(modules[name], works=None) for name in rule.explains if name in modules}
            unexplained = replace(unexplained, modules={**modules, **explained})
    answers = {}
    for target in shown or known:
        doctor = doctors[target.name]
        build, run = doctor.build(facts), doctor.run(facts)
        blocked = ", ".join(finding.name for finding in findings if finding.name in doctor.blocked_by)
        if blocked and run.can == "yes":
            run = Capability("no", f"{run.why}, but {blocked}, see below")
        answers[target.name] = {"build": build, "run": run}
    return MachineDiagnosis(facts, answers, tuple(sorted(findings, key=lambda finding: finding.severity)))


# ----------------------------------------------------------------------------------------------- for people


def diagnosis_lines(diagnosis: MachineDiagnosis) -> list[str]:
    """What is there, what can be built and run, what does not work and its fix."""
    verdicts = []
    for target, answers in diagnosis.targets.items():
        build, run = answers["build"], answers["run"]
        if build == run:
            verdicts.append((target, f"both   {build.can:<8}  {build.why}"))
        else:
            verdicts += [(target, f"build  {build.can:<8}  {build.why}"), ("", f"run    {run.can:<8}  {run.why}")]
    faults = []
    for finding in diagnosis.findings:
        faults += [(finding.severity, f"{finding.name}: {finding.says}"), ("", f"fix: {finding.fix}")]
    blocks = {
        "machine": list(_machine(diagnosis.facts)),
        "installed": list(_installed(diagnosis.facts)),
        "can be built and run here": verdicts,
        "known not to work": faults or [("nothing", "")],
    }
    lines = []
    for title, rows in blocks.items():
        width = max(len(name) for name, _ in rows)
        lines += [title, *(f"  {name:<{width}}  {text}".rstrip() for name, text in rows)]
    return lines


def _machine(facts: MachineFacts) -> "Iterator[tuple[str, str]]":
    host, cores, gpu = facts.host, facts.host["cores"], facts.gpu
    yield "system", f"{host['system']}, {host['arch'] or 'unknown architecture'}"
    limited = f", limited to {cores['quota']:.3g}" if cores["quota"] else ""
    yield "processor", f"{host['cpu'] or 'unknown'}, {cores['allowed'] or cores['visible'] or '?'} cores{limited}"
    yield "instructions", ", ".join(host["isa"]) if host["isa"] else "none of those that matter here"
    yield "memory", f"{_gb(host['memory_bytes'])}, {_gb(host['memory_available_bytes'])} available"
    if host["disk_free_bytes"] is not None:
        yield "disk", f"{_gb(host['disk_free_bytes'])} free here"
    if facts.jetson:
        board = facts.jetson
        yield "board", f"{board['model'] or 'Jetson'}, JetPack {board['jetpack'] or '?'}, L4T {board['l4t'] or '?'}"
    devices = [f"{device['name']} (SM {device['sm']}, {_gb(device['memory_bytes'])})" for device in gpu.devices]
    words = devices or [gpu.fault or ("not recorded" if facts.recorded else "none")]
    words += [f"driver {gpu.driver}"] * bool(gpu.driver)
    words += [f"CUDA {gpu.cuda} at most"] * bool(gpu.cuda)
    words += [f"CUDA runtime {gpu.runtime}"] * bool(gpu.runtime)
    yield "GPU", ", ".join(words)
    if not facts.recorded:
        yield "tools", ", ".join(name if path else f"no {name}" for name, path in facts.tools.items())


def _installed(facts: MachineFacts) -> "Iterator[tuple[str, str]]":
    environment = facts.python["environment"] or facts.python["executable"] or ""
    yield "python", f"{facts.python['version'] or 'not recorded'}  {environment}".rstrip()
    for name, module in facts.modules.items():
        more = ""
        if module.works is False:
            more = f"  import fails: {module.fault}"
        elif name == "torch" and "cuda" in module.facts:
            more = f"  {'CUDA ' + module.facts['cuda'] if module.facts['cuda'] else 'without CUDA'}"
        elif providers := module.facts.get("providers"):
            more = f"  {', '.join(provider.removesuffix('ExecutionProvider') for provider in providers)}"
        yield module.distribution, f"{module.version}{more}"


def _gb(count: "int | None") -> str:
    return "?" if count is None else f"{count / 1e9:.1f} GB"
