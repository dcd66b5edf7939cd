"""All of a statement as text, for a person who wants to know where each figure comes from."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edge.statement.statement import PREDICATE_TYPE, VERSION, Figure, MachineWarning, Predicate, Statement
from edge.validity import rules


def statement_text(stated: Statement) -> str:
    """The statement for a person at a terminal, in a few lines."""
    p = stated.predicate
    artifact, threat = p.artifact, p.threat
    agreement = "not measured: the attack set does not hold the artifact's twin"
    if p.agreement is not None:
        clean, adversarial = p.agreement.clean.argmax_agreement, p.agreement.adversarial.argmax_agreement
        agreement = f"{clean:.1%} of clean, {adversarial:.1%} of adversarial predictions equal the twin's"
    lines = [
        f"{artifact.file} {artifact.sha256[:12]}  {artifact.precision}, {artifact.bytes:,} bytes",
        f"threat      {threat.norm}, eps {threat.eps} ({threat.grid_radius} grey levels), "
        f"{p.data.n} test images of {p.data.name}",
        f"clean       {figure_phrase(p.figures.clean)}",
        f"robust      {_robust(p)}",
        f"agreement   {agreement}",
        *_timed(p),
        *latency_lines(p),
        *machine_lines(p.machine, p.warnings or []),
        *(f"ALARM       {alarm.name}: {alarm.meaning}" for alarm in p.alarms if alarm.fired),
    ]
    return "\n".join([*lines, "Empirical: the attacks named were run on these bytes. No certificate."])


def _timed(predicate: Predicate) -> Iterator[str]:
    """Latency, and what holds of it and the accuracies where they are of two sizes of batch."""
    latency, accuracy_size = predicate.times, predicate.batch_size
    size = latency.batch_size
    times = (
        f"latency     p50 {latency.p50_ms:.3f} ms, p99 {latency.p99_ms:.3f} ms at batch {size} ({latency.n} samples)"
    )
    if size == accuracy_size:
        yield times
        return
    alarm = next((alarm for alarm in predicate.alarms if alarm.name == rules.BATCH), None)
    if alarm is not None and alarm.fired:
        yield (
            f"latency     timed at batch {size}, which is not the batch of these accuracies ({accuracy_size}) and "
            f"gives other logits; verify with --set batch_size={size}"
        )
        return
    yield times
    asked = "whether logits depend on that was not asked" if alarm is None else alarm.meaning
    yield f"batch       accuracies are of batches of {accuracy_size}, latency of {size}; {asked}"


def _robust(predicate: Predicate) -> str:
    figures, left_open = predicate.figures, predicate.figures.inconclusive
    if figures.robust:
        return f"{figure_phrase(figures.robust)}, worst case over {len(predicate.attacks)} attacks"
    missing = ", ".join(part.part for part in predicate.protocol if not part.covered)
    bound = f"at most {figure_phrase(figures.worst)}: an upper bound, not covered: {missing}"
    if left_open is None:
        return bound
    undecided = f"{left_open.undecided} images undecided when the budget of {left_open.budget_seconds:g} s ended"
    if missing:
        return f"{bound}; {undecided}"
    return (
        f"inconclusive, {undecided}: {figure_phrase(left_open.if_all_fall)} if all of them fall, "
        f"{figure_phrase(left_open.if_all_stand)} if all stand"
    )


def figure_phrase(figure: Figure) -> str:
    """A figure with its count and interval: `50.0% (100 of 200, 95% interval 43.0% to 57.0%)`."""
    low, high = figure.interval
    return f"{figure.value:.1%} ({figure.count} of {figure.n}, {figure.level:.0%} interval {low:.1%} to {high:.1%})"


def statement_details(stated: Statement) -> str:
    """The summary, then attacks, protocol, alarms, float figures, machine, versions, lineage and bound files."""
    p = stated.predicate
    by_label = p.float_figures or {}
    runtime, before = p.runtime, p.machine["before"]
    versions = ", ".join(f"{name} {version}" for name, version in p.versions.items())
    files = {p.artifact.file: p.artifact.sha256}
    if p.verdicts is not None:
        files[p.verdicts.file] = p.verdicts.sha256
    if p.attack_set is not None:
        files |= p.attack_set.files
    width = max(map(len, files))
    table = [["", "kind", "accuracy", "broken", "alone", "parameters", "where"]]
    for attack in p.attacks:
        parameters = ", ".join(f"{key} {_value(value)}" for key, value in attack.parameters.items())
        counts = [f"{attack.robust_accuracy:.1%}", str(attack.broken), str(attack.alone)]
        table.append([attack.name, attack.kind, *counts, parameters, attack.where])
    widths = [max(len(cell) for cell in column) for column in zip(*table, strict=True)]
    padded = ["  ".join(map(str.ljust, cells, widths)).rstrip() for cells in table]
    attacks = padded if p.attacks else []
    parts = {
        f"statement   version {VERSION}, {PREDICATE_TYPE}": [],
        "attacks": attacks,
        "protocol": [
            f"({part.part}) {'covered    ' if part.covered else 'NOT covered'} {part.what}: "
            f"{', '.join(part.attacks) or '–'}; {part.where}"
            for part in p.protocol
        ],
        "alarms": [f"{'FIRED ' if alarm.fired else 'silent'} {alarm.name}: {alarm.meaning}" for alarm in p.alarms],
        "float figures, off the 8-bit grid": [
            f"{label}: {', '.join(_shares(figures))}" for label, figures in by_label.items()
        ],
        "execution": [
            f"{runtime['name']} {runtime['version']}, {runtime['provider']}, {runtime['threads']} threads, "
            f"batches of {p.batch_size}, seed {p.seed}",
            f"machine   {before.get('cpu') or 'unknown CPU'}, kernel {before.get('kernel') or 'unknown'}",
            f"versions  {versions or 'none recorded'}",
        ],
        "state of the machine": machine_details(p.machine),
        "lineage": [f"{ancestor.stage:<12} {ancestor.identity}" for ancestor in p.lineage],
        "bound files": [f"{name:<{width}}  {sha256}" for name, sha256 in files.items()],
    }
    lines = [statement_text(stated)]
    for title, rows in parts.items():
        if rows or title.startswith("statement"):
            lines += ["", title, *(f"  {row}" for row in rows)]
    return "\n".join(lines)


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _shares(figures: Mapping[str, Any]) -> list[str]:
    """Whatever the attack set says of a model: shares as they are, figures by their value."""
    phrases = []
    for name, value in figures.items():
        number = value.get("value") if isinstance(value, Mapping) else value
        phrases.append(f"{name} {number:.1%}" if isinstance(number, float) else f"{name} {number}")
    return phrases


def latency_lines(predicate: Predicate) -> Iterator[str]:
    """Offline, camera, load and preprocessing, of what was measured."""
    latency = predicate.times
    if offline := latency.offline:
        rate, size = f"{offline.images_per_s:,.0f} images/s", offline.batch_size
        yield f"offline     {rate} at batch {size} over {offline.seconds:.1f} s"
    for shot in latency.camera or []:
        times = f"p50 {shot.p50_ms:.3f} ms, p99 {shot.p99_ms:.3f} ms from the scheduled arrival"
        late = f"{shot.dropped} dropped, {shot.missed} later than {shot.deadline_ms:.1f} ms"
        yield f"camera      {shot.fps:g} frames/s: {times}; of {shot.frames} frames {late}"
    if load := latency.conditions.load:
        yield f"load        {load_phrase(load)} beside all that was timed"
    if pipeline := predicate.preprocess:
        assert latency.preprocess_ms is not None  # timed wherever there is a pipeline
        taken, right = latency.preprocess_ms.p50_ms, pipeline.clean.value
        stay = f"{right:.1%} of clean images right, {pipeline.same_prediction:.1%} of predictions stay"
        yield f"preprocess  {pipeline.name}: p50 {taken:.3f} ms, inside the latency; through it {stay}"


def load_phrase(load: Mapping[str, Any]) -> str:
    """What ran beside a measurement: `2 busy processes`, or the command."""
    if "command" in load:
        return str(load["command"])
    count = load["processes"]
    return f"{count} busy process{'es' if count > 1 else ''}"


def machine_lines(machine: Mapping[str, Any], warnings: Sequence[MachineWarning]) -> list[str]:
    """For the summary: energy where it was measured, and each warning with what ends it."""
    energy = energy_phrase(machine)
    lines = [f"energy      {energy}"] if energy else []
    return lines + [f"warning     {warning.name}: {warning.found}; {warning.fix}" for warning in warnings]


def energy_phrase(machine: Mapping[str, Any]) -> "str | None":
    """`12.3 mJ an image on VDD_IN, 8.1 mJ above idle`; None where it was not measured."""
    energy = (machine.get("during") or {}).get("energy") or {}
    if energy.get("gross_mj") is None:
        return None
    net = "" if energy["net_mj"] is None else f", {energy['net_mj']:.3g} mJ above idle"
    return f"{energy['gross_mj']:.3g} mJ an image on {' + '.join(energy['rails'])}{net}"


def machine_details(machine: Mapping[str, Any]) -> list[str]:
    """Everything that was read, a line a matter; nothing for a statement without evidence."""
    before, during = machine["before"], machine.get("during")
    return [] if "kind" not in before else [f"{name:<9} {matter}" for name, matter in _matters(before, during or {})]


def _matters(before: Mapping[str, Any], during: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    board, mode, gpu = before["board"], before["power_mode"], before["gpu"] or {}
    if board:
        yield "board", f"{board['model']}, JetPack {board['jetpack'] or '?'}, L4T {board['l4t'] or '?'}"
    if gpu.get("name"):
        yield "gpu", f"{gpu['name']}, driver {gpu.get('driver')}, CUDA {gpu.get('cuda')}"
    if mode:
        held = {True: "clocks held", False: "clocks free", None: "clocks not known"}[before["jetson_clocks"]]
        yield "mode", f"{mode['name']} ({mode['id']}), {held}"
    if during.get("mhz"):
        yield "clocks", _levels(during["mhz"], "MHz")
    if during.get("celsius"):
        yield "heat", _levels(during["celsius"], "°C")
    if during.get("mw"):
        yield "power", _levels(during["mw"], "mW")
    why = during.get("energy", {}).get("why")
    if why:
        yield "energy", why
    if during.get("cores"):
        cores = ", ".join(f"{name} {value:.2f}" for name, value in during["cores"].items())
        yield "cores", f"{cores} (mean while timed)"
    if during:
        yield "watched", f"{during['n']} samples in {during['seconds']:.2f} s of {during['what']}"
    for row in before["unreadable"]:
        yield "unread", f"{row['what']}: {row['why']}; {row['how']}"


def _levels(levels: Mapping[str, Mapping[str, float]], unit: str) -> str:
    """Means, with the range where there is one; cores that did the same together."""
    same: dict[str, list[str]] = {}
    for name, level in levels.items():
        mean, low, high = (f"{level[key]:.0f}" for key in ("mean", "min", "max"))
        same.setdefault(mean if low == high else f"{mean} ({low} to {high})", []).append(name)
    return ", ".join(f"{_names(names)} {phrase} {unit}" for phrase, names in same.items())


def _names(names: "list[str]") -> str:
    return names[0] if len(names) == 1 else f"{names[0]} … {names[-1]}"
