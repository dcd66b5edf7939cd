"""A diagnosis for people."""

from collections.abc import Iterator

from edge.doctor.diagnosis import MachineDiagnosis
from edge.doctor.facts import Gpu, MachineFacts, Module


def diagnosis_lines(diagnosis: MachineDiagnosis) -> list[str]:
    """What is there, what can be built and run, what does not work and its fix."""
    facts = diagnosis.facts
    return [
        *_block("machine", _machine(facts)),
        *_block("installed", _installed(facts)),
        *_block("can be built and run here", _targets(diagnosis)),
        *_block("known not to work", _findings(diagnosis)),
    ]


def _block(title: str, rows: "Iterator[tuple[str, str]]") -> list[str]:
    listed = [*rows]
    width = max(len(name) for name, _ in listed)
    return [title, *(f"  {name:<{width}}  {text}".rstrip() for name, text in listed)]


def _machine(facts: MachineFacts) -> "Iterator[tuple[str, str]]":
    host = facts.host
    cores = host["cores"]
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
    yield "GPU", _gpu(facts.gpu, facts.recorded)
    if not facts.recorded:
        yield "tools", ", ".join(name if path else f"no {name}" for name, path in facts.tools.items())


def _gpu(gpu: Gpu, recorded: bool) -> str:
    driver = f"driver {gpu.driver}" if gpu.driver else ""
    serves = f"CUDA {gpu.cuda} at most" if gpu.cuda else ""
    devices = [f"{device['name']} (SM {device['sm']}, {_gb(device['memory_bytes'])})" for device in gpu.devices]
    missing = "not recorded" if recorded else "none"
    runtime = f"CUDA runtime {gpu.runtime}" if gpu.runtime else ""
    return ", ".join(filter(None, [*(devices or [gpu.fault or missing]), driver, serves, runtime]))


def _installed(facts: MachineFacts) -> "Iterator[tuple[str, str]]":
    environment = facts.python["environment"] or facts.python["executable"] or ""
    yield "python", f"{facts.python['version'] or 'not recorded'}  {environment}".rstrip()
    for name, module in facts.modules.items():
        yield module.distribution, f"{module.version}{_facts(name, module)}"


def _facts(name: str, module: Module) -> str:
    if module.works is False:
        return f"  import fails: {module.fault}"
    if name == "torch" and "cuda" in module.facts:
        return f"  {'CUDA ' + module.facts['cuda'] if module.facts['cuda'] else 'without CUDA'}"
    if providers := module.facts.get("providers"):
        return f"  {', '.join(provider.removesuffix('ExecutionProvider') for provider in providers)}"
    return ""


def _targets(diagnosis: MachineDiagnosis) -> "Iterator[tuple[str, str]]":
    for target, answers in diagnosis.targets.items():
        build, run = answers["build"], answers["run"]
        if build == run:
            yield target, f"both   {build.can:<8}  {build.why}"
            continue
        yield target, f"build  {build.can:<8}  {build.why}"
        yield "", f"run    {run.can:<8}  {run.why}"


def _findings(diagnosis: MachineDiagnosis) -> "Iterator[tuple[str, str]]":
    for finding in diagnosis.findings:
        yield finding.severity, f"{finding.name}: {finding.says}"
        yield "", f"fix: {finding.fix}"
    if not diagnosis.findings:
        yield "nothing", ""


def _gb(count: "int | None") -> str:
    return "?" if count is None else f"{count / 1e9:.1f} GB"
