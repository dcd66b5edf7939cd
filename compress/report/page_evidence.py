"""What stands behind a statement: protocol, agreement with the twin, alarms, latency, machine."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from compress.report import svg
from compress.report.markup import Column, Html, badge, element, join, section, table
from compress.report.page_device import SHOWN
from compress.report.page_latency import scenarios
from edge.core import readable

MARKS = ("p50_ms", "p90_ms", "p99_ms")
LATENCIES = ("p50_ms", "p90_ms", "p95_ms", "p99_ms", "p999_ms", "mean_ms", "min_ms", "max_ms")


def protocol(document: Mapping[str, Any]) -> "Html | None":
    """Which parts of the protocol were run on which artifact, how artifact and twin agree, and the alarms."""
    verified = document.get("verified", ())
    if not verified:
        return None
    return section(
        "protocol",
        "Protocol, agreement and alarms",
        *(_coverage(entry) for entry in verified),
        _agreement(verified),
        _alarms(verified),
    )


def _coverage(entry: Mapping[str, Any]) -> Html:
    columns = [Column("part"), Column("what", "long"), Column("covered"), Column("attacks"), Column("where", "long")]
    rows = [
        [
            f"({part['part']})",
            part["what"],
            badge("yes", "good") if part["covered"] else badge("no", "bad"),
            join([element("code", name) for name in part["attacks"]], " "),
            part["where"],
        ]
        for part in entry["predicate"]["protocol"]
    ]
    return table(f"Protocol on {entry['label']}", columns, rows)


def _agreement(verified: Sequence[Mapping[str, Any]]) -> Html:
    columns = [
        Column("artifact"),
        Column("images"),
        *(Column(title, "number") for title in ("compared", "same prediction", "largest logit difference")),
    ]
    rows = []
    for entry in verified:
        if entry["predicate"]["agreement"] is None:
            rows.append([entry["label"], "not measured: no twin in the attack set", *[readable.NONE] * 3])
            continue
        for kind, found in entry["predicate"]["agreement"].items():
            largest = readable.number(found.get("max_abs"))
            agreement = readable.percent(found.get("argmax_agreement"))
            rows.append([entry["label"], kind, readable.number(found["n"]), agreement, largest])
    sentences = ["The twin is the torch model that stands for the artifact where gradients are needed."]
    for entry in verified:
        found = entry["predicate"]["differential"]
        count = readable.counted(found)
        sentences.append(f"{count} adversarial images fool {entry['label']} and leave the float student right.")
    return join(
        [table("Artifact against its twin", columns, rows), *(element("p", text, class_="quiet") for text in sentences)]
    )


def _alarms(verified: Sequence[Mapping[str, Any]]) -> Html:
    columns = [
        Column("artifact"),
        Column("alarm"),
        Column("state"),
        *(Column(title, "number") for title in ("count", "threshold", "95 % interval")),
        Column("what it means", "long"),
    ]
    rows = [
        [
            entry["label"],
            alarm["name"],
            badge("fired", "bad") if alarm["fired"] else badge("quiet", "good"),
            readable.flat(alarm["count"]),
            readable.flat(alarm["threshold"]),
            readable.interval(alarm) if alarm["interval"] else readable.NONE,
            alarm["meaning"],
        ]
        for entry in verified
        for alarm in entry["predicate"]["alarms"]
    ]
    return table("Alarms", columns, rows)


def latency(document: Mapping[str, Any]) -> "Html | None":
    """Distributions on one axis, the numbers, what was timed, and the machine before and after."""
    timed = [entry for entry in document.get("verified", ()) if len(entry["samples_ns"])]
    if not timed:
        return None
    inside = dict.fromkeys(_timing(entry)["inside"] for entry in timed)
    return section(
        "latency",
        "Latency",
        *_distributions(timed),
        _latencies(timed),
        *scenarios(timed),
        *(element("p", f"Inside each timed interval: {text}.", class_="quiet") for text in inside),
        _machine(timed),
    )


def _timing(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    return dict(entry["predicate"]["latency"])


def _distributions(timed: Sequence[Mapping[str, Any]]) -> Iterator[Html]:
    """A histogram an artifact, all on one axis."""
    samples = [np.asarray(entry["samples_ns"], np.float64) / 1e6 for entry in timed]
    low, high = 0.95 * min(values.min() for values in samples), 1.05 * max(values.max() for values in samples)
    for entry, values in zip(timed, samples, strict=True):
        found = _timing(entry)
        marks = {f"{name[:3]} {readable.milliseconds(found[name])}": found[name] for name in MARKS}
        text = (
            f" {readable.number(len(values))} calls of {found['batch_size']}, after {found['warmup']} untimed ones; "
            "logarithmic axis."
        )
        label = f"Distribution of the latency of {entry['label']}: {', '.join(marks)}"
        yield element(
            "figure",
            element("figcaption", element("strong", entry["label"]), text),
            svg.histogram(values, marks, float(low), float(high), "ms", label),
        )


def _latencies(timed: Sequence[Mapping[str, Any]]) -> Html:
    columns = [Column("latency"), *(Column(entry["label"], "number") for entry in timed)]
    found = [_timing(entry) for entry in timed]
    rows = [
        [name.removesuffix("_ms").replace("p999", "p99.9"), *(readable.milliseconds(one.get(name)) for one in found)]
        for name in LATENCIES
        if any(name in one for one in found)
    ]
    rows.append(["coefficient of variation", *(readable.percent(one["cv"]) for one in found)])
    rows.append(["images a second", *(f"{one['images_per_s']:,.0f}" for one in found)])
    rows.append(["cold start: opening the runtime", *(readable.milliseconds(one["cold_start_ms"]) for one in found)])
    rows.append(["first inference", *(readable.milliseconds(one["first_inference_ms"]) for one in found)])
    rows.append(["images a call", *(readable.number(one["batch_size"]) for one in found)])
    return table("Latency of one call", columns, rows)


def _machine(timed: Sequence[Mapping[str, Any]]) -> Html:
    """The machine's state and the runtime, one row a property; where it changed meanwhile, before → after."""
    states = [entry["predicate"]["machine"] for entry in timed]
    runtimes = [entry["predicate"]["runtime"] for entry in timed]
    properties = dict.fromkeys(key for state in states for key in {**state["before"], **state["after"]})
    rows = [
        [key, *(_change(state["before"].get(key), state["after"].get(key)) for state in states)]
        for key in properties
        if key not in SHOWN
    ]
    rows += [
        [f"runtime {key}", *(readable.flat(runtime.get(key)) for runtime in runtimes)]
        for key in dict.fromkeys(key for runtime in runtimes for key in runtime)
    ]
    columns = [Column("property"), *(Column(entry["label"], "long") for entry in timed)]
    return table("Machine and runtime, before → after", columns, rows)


def _change(before: Any, after: Any) -> str:
    first, second = readable.flat(before), readable.flat(after)
    return first if first == second else f"{first} → {second}"
