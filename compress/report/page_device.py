"""The state of the machine while it measured: warnings, energy, power, clocks and heat over time, what was not read."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from compress.report.markup import Html, badge, element, html_table, long_columns, section, text_columns
from compress.report.page_accuracy import legend
from compress.report.svg import over_time
from edge.core import readable
from edge.evidence.power import summands
from edge.evidence.samples import Samples

Entry = Mapping[str, Any]
#: What this section shows of a machine's state, so that no other table repeats it.
SHOWN = frozenset(
    (
        *("kind", "monotonic_ns", "board", "power_mode", "clocks", "jetson_clocks", "boost", "virtual", "gpu"),
        *("temperatures_c", "limits_c", "throttled", "over_current", "limited", "power_mw", "energy_mj"),
        *("fans", "memory", "ticks", "unreadable"),
    )
)
COLOURS = ("worst", "pgd", "clean")
QUANTITIES = {"mw": ("Power", "mW"), "mhz": ("Clocks", "MHz"), "celsius": ("Temperature", "°C")}


def device(document: Mapping[str, Any]) -> "Html | None":
    """The section; None where no statement tells of a machine's state."""
    watched = [entry for entry in document.get("verified", ()) if "kind" in entry["predicate"]["machine"]["before"]]
    if not watched:
        return None
    columns = [*text_columns("property"), *long_columns(*(entry["label"] for entry in watched))]
    states = [dict(_state(entry["predicate"])) for entry in watched]
    names = dict.fromkeys(name for state in states for name in state)
    rows = [[name, *(state.get(name, readable.NONE) for state in states)] for name in names]
    states_table = html_table("State of the machine", columns, rows)
    return section(
        "device",
        "The machine while it measured",
        _warnings(watched),
        states_table,
        *(chart for entry in watched for chart in _charts(entry)),
        _unread(watched),
    )


def _warnings(watched: Sequence[Entry]) -> Html:
    rows = [
        [entry["label"], badge(row["name"], "warn"), row["found"], row["fix"]]
        for entry in watched
        for row in entry["predicate"].get("warnings", ())
    ]
    if not rows:
        return element("p", badge("nothing speaks against them", "good"), " Latency and energy can be trusted.")
    columns = [*text_columns("artifact", "warning"), *long_columns("what was found", "what ends it")]
    return html_table("Reasons not to trust latency and energy", columns, rows)


def _state(predicate: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    before, after = predicate["machine"]["before"], predicate["machine"]["after"]
    during = predicate["machine"].get("during") or {}
    yield "kind", str(before["kind"])
    for key, name in (("board", "board"), ("power_mode", "power mode"), ("jetson_clocks", "clocks held")):
        if before.get(key) is not None:
            yield name, readable.change(before[key], after.get(key))
    if before.get("gpu"):
        yield "GPU", readable.flat({key: value for key, value in before["gpu"].items() if value is not None})
    yield "energy of one image", _energy(during.get("energy") or {})
    for what, energy in (during.get("energy_of_others") or {}).items():
        if energy["gross_mj"] is not None:
            yield f"energy of one image, {what}", _energy(energy)
    for key, (name, unit) in QUANTITIES.items():
        if during.get(key):
            means = ", ".join(f"{part} {level['mean']:,.0f}" for part, level in during[key].items())
            yield name.lower(), f"{means} {unit}"
    if during.get("cores"):
        yield "cores, mean", readable.flat(during["cores"])
    yield "throttled", _active(during.get("throttled") or {}) or _active(before["throttled"]) or "nothing"
    yield "over-current events", readable.change(before["over_current"], after["over_current"])
    if during:
        cost = readable.percent(during.get("sampler_cpu"))
        yield "samples", f"{during['n']} in {readable.duration(during['seconds'])}, at {cost} of a core"


def _energy(energy: Mapping[str, Any]) -> str:
    if energy.get("gross_mj") is None:
        return str(energy.get("why") or readable.NONE)
    net = energy["why"] if energy["net_mj"] is None else f"{readable.number(energy['net_mj'])} mJ above idle"
    return f"{readable.number(energy['gross_mj'])} mJ on {' + '.join(energy['rails'])}; {net}"


def _active(states: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {readable.number(float(value))}" for name, value in states.items() if value > 0)


def _charts(entry: Entry) -> Iterator[Html]:
    """Up to three lines a quantity; the timed part is shaded."""
    samples: Samples | None = entry.get("watched")
    if samples is None or len(samples) < 2:
        return
    figures = [figure for key in QUANTITIES if (figure := _chart(entry, samples, key)) is not None]
    if figures:
        yield element("p", element("strong", entry["label"]), " over time; shaded: the timed part.")
        yield element("div", *figures, class_="small-charts")


def _chart(entry: Entry, samples: Samples, key: str) -> "Html | None":
    rows = {name.partition(".")[2]: row for name, row in samples.values.items() if name.startswith(f"{key}.")}
    rows = {name: row for name, row in rows.items() if np.isfinite(row).sum() >= 2}
    # The rails that are the whole, the parts that matter, or the highest
    if key == "mw":
        wanted = [*summands([name for name in rows if name != "GPU"]), "GPU"]
    elif key == "mhz":
        wanted = ["gpu", "cpu0", "emc", "gpu_memory"]
    else:
        wanted = sorted(rows, key=lambda name: -float(np.nanmax(rows[name])))
    names = [name for name in wanted if name in rows][: len(COLOURS)]
    if not names:
        return None
    title, unit = QUANTITIES[key]
    seconds = (samples.times_ns - samples.times_ns[0]) / 1e9
    lines = {}
    for colour, name in zip(COLOURS, names, strict=False):
        there = np.isfinite(rows[name])
        lines[colour] = seconds[there], rows[name][there]
    label = f"{title} of {', '.join(names)} over time, {entry['label']}"
    span = (entry["predicate"]["machine"].get("during") or {}).get("span_ns")
    timed = None if span is None else ((span[0] - samples.times_ns[0]) / 1e9, (span[1] - samples.times_ns[0]) / 1e9)
    return element(
        "figure",
        element("figcaption", element("strong", f"{title}, {unit}"), legend(dict(zip(COLOURS, names, strict=False)))),
        over_time(lines, timed, label),
    )


def _unread(watched: Sequence[Entry]) -> Html:
    rows = [
        [entry["label"], row["what"], row["why"], row["how"]]
        for entry in watched
        for row in entry["predicate"]["machine"]["before"]["unreadable"]
    ]
    columns = [*text_columns("artifact", "what"), *long_columns("why", "what would bring it")]
    return html_table("What could not be read", columns, rows)
