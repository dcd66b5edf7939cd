"""What stands behind a statement: protocol, agreement with the twin, alarms, latency, machine."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from compress.report import svg
from compress.report.markup import (
    Html,
    badge,
    element,
    html_table,
    join,
    long_columns,
    number_columns,
    section,
    text_columns,
)
from compress.report.page_device import SHOWN
from edge.core import readable

MARKS = ("p50_ms", "p90_ms", "p99_ms")
LATENCIES = ("p50_ms", "p90_ms", "p95_ms", "p99_ms", "p999_ms", "mean_ms", "min_ms", "max_ms")


def protocol(document: Mapping[str, Any]) -> "Html | None":
    """Which parts of the protocol were run on which artifact, how artifact and twin agree, and the alarms."""
    verified = document.get("verified", ())
    if not verified:
        return None
    numbers = number_columns("count", "threshold", "95 % interval")
    columns = [*text_columns("artifact", "alarm", "state"), *numbers, *long_columns("what it means")]
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
    alarms = html_table("Alarms", columns, rows)
    return section(
        "protocol",
        "Protocol, agreement and alarms",
        *(_coverage(entry) for entry in verified),
        _agreement(verified),
        alarms,
    )


def _coverage(entry: Mapping[str, Any]) -> Html:
    columns = [
        *text_columns("part"),
        *long_columns("what"),
        *text_columns("covered", "attacks"),
        *long_columns("where"),
    ]
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
    return html_table(f"Protocol on {entry['label']}", columns, rows)


def _agreement(verified: Sequence[Mapping[str, Any]]) -> Html:
    columns = [
        *text_columns("artifact", "images"),
        *number_columns("compared", "same prediction", "largest logit difference"),
    ]
    rows = []
    for entry in verified:
        if entry["predicate"]["agreement"] is None:
            rows.append([entry["label"], "not measured: no twin in the attack set", *[readable.NONE] * 3])
            continue
        for kind, agreed in entry["predicate"]["agreement"].items():
            largest = readable.number(agreed.get("max_abs"))
            agreement = readable.percent(agreed.get("argmax_agreement"))
            rows.append([entry["label"], kind, readable.number(agreed["n"]), agreement, largest])
    sentences = ["The twin is the torch model that stands for the artifact where gradients are needed."]
    for entry in verified:
        count = readable.counted(entry["predicate"]["differential"])
        sentences.append(f"{count} adversarial images fool {entry['label']} and leave the float student right.")
    return join(
        [
            html_table("Artifact against its twin", columns, rows),
            *(element("p", text, class_="quiet") for text in sentences),
        ]
    )


def latency(document: Mapping[str, Any]) -> "Html | None":
    """Distributions on one axis, the numbers, what was timed, and the machine before and after."""
    timed = [entry for entry in document.get("verified", ()) if len(entry["samples_ns"])]
    if not timed:
        return None
    inside = dict.fromkeys(_timing(entry)["inside"] for entry in timed)
    columns = [*text_columns("latency"), *number_columns(*(entry["label"] for entry in timed))]
    timings = [_timing(entry) for entry in timed]
    rows = [
        [
            name.removesuffix("_ms").replace("p999", "p99.9"),
            *(readable.milliseconds(timing.get(name)) for timing in timings),
        ]
        for name in LATENCIES
        if any(name in timing for timing in timings)
    ]
    rows += [
        ["coefficient of variation", *(readable.percent(timing["cv"]) for timing in timings)],
        ["images a second", *(f"{timing['images_per_s']:,.0f}" for timing in timings)],
        ["cold start: opening the runtime", *(readable.milliseconds(timing["cold_start_ms"]) for timing in timings)],
        ["first inference", *(readable.milliseconds(timing["first_inference_ms"]) for timing in timings)],
        ["images a call", *(readable.number(timing["batch_size"]) for timing in timings)],
    ]
    return section(
        "latency",
        "Latency",
        *_distributions(timed),
        html_table("Latency of one call", columns, rows),
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
        timing = _timing(entry)
        marks = {f"{name[:3]} {readable.milliseconds(timing[name])}": timing[name] for name in MARKS}
        text = (
            f" {readable.number(len(values))} calls of {timing['batch_size']}, after {timing['warmup']} untimed ones; "
            "logarithmic axis."
        )
        label = f"Distribution of the latency of {entry['label']}: {', '.join(marks)}"
        yield element(
            "figure",
            element("figcaption", element("strong", entry["label"]), text),
            svg.histogram(values, marks, float(low), float(high), "ms", label),
        )


def _machine(timed: Sequence[Mapping[str, Any]]) -> Html:
    """The machine's state and the runtime, one row a property; where it changed meanwhile, before → after."""
    states = [entry["predicate"]["machine"] for entry in timed]
    runtimes = [entry["predicate"]["runtime"] for entry in timed]
    properties = dict.fromkeys(key for state in states for key in {**state["before"], **state["after"]})
    rows = [
        [key, *(readable.change(state["before"].get(key), state["after"].get(key)) for state in states)]
        for key in properties
        if key not in SHOWN
    ]
    rows += [
        [f"runtime {key}", *(readable.flat(runtime.get(key)) for runtime in runtimes)]
        for key in dict.fromkeys(key for runtime in runtimes for key in runtime)
    ]
    columns = [*text_columns("property"), *long_columns(*(entry["label"] for entry in timed))]
    return html_table("Machine and runtime, before → after", columns, rows)


Entry = Mapping[str, Any]
PARTS = {"h2d_ms": "copy in", "compute_ms": "computation", "d2h_ms": "copy out", "host_ms": "host", "total_ms": "whole"}


def scenarios(timed: Sequence[Entry]) -> Iterator[Html]:
    """A chart, table or sentence for each thing that any of the artifacts was asked for; nothing for the rest."""
    latencies = [(str(entry["label"]), dict(entry["predicate"]["latency"])) for entry in timed]
    yield from _sizes(latencies)
    yield from _camera(latencies)
    rows = [(label, latency["parts"]) for label, latency in latencies if "parts" in latency]
    if rows:
        yield html_table(
            "Where a query's time goes, medians",
            [*text_columns("artifact"), *number_columns(*PARTS.values())],
            [[label, *(readable.milliseconds(row[key]) for key in PARTS)] for label, row in rows],
        )
    yield from _pipeline(timed)
    yield from _conditions(latencies)


def _sizes(latencies: "Sequence[tuple[str, Entry]]") -> Iterator[Html]:
    """Throughput by batch size: of the sweep, and offline's own size."""
    rows = [(label, row) for label, latency in latencies for row in _by_size(latency)]
    if not rows:
        return
    sizes = sorted({row["batch_size"] for _, row in rows})
    groups = [
        (
            f"{size} image{'s' if size > 1 else ''} a call",
            [
                (row["images_per_s"], f"{row['images_per_s']:,.0f} · {label}")
                for label, row in rows
                if row["batch_size"] == size
            ],
        )
        for size in sizes
    ]
    yield element(
        "figure",
        element("figcaption", element("strong", "Throughput by batch size"), " images a second, calls back to back."),
        svg.amounts(groups, f"Images a second by batch size, {', '.join(map(str, sizes))}"),
    )
    yield html_table(
        "Latency and throughput by batch size",
        [*text_columns("artifact"), *number_columns("batch", "images/s", "p50", "p99", "calls")],
        [
            [
                label,
                readable.number(row["batch_size"]),
                f"{row['images_per_s']:,.0f}",
                readable.milliseconds(row["p50_ms"]),
                readable.milliseconds(row["p99_ms"]),
                readable.number(row["n"]),
            ]
            for label, row in rows
        ],
    )


def _by_size(latency: Entry) -> "list[Entry]":
    rows = {row["batch_size"]: row for row in [*latency.get("sweep", []), *filter(None, [latency.get("offline")])]}
    return [rows[size] for size in sorted(rows)]


def _camera(latencies: "Sequence[tuple[str, Entry]]") -> Iterator[Html]:
    rows = [(label, row) for label, latency in latencies for row in latency.get("camera", [])]
    if not rows:
        return
    titles = ("frames/s", "frames", "dropped", "late", "in time", "p50", "p90", "p99", "longest", "jitter")
    yield html_table(
        "Camera: latency from the scheduled arrival of a frame",
        [*text_columns("artifact"), *number_columns(*titles)],
        [
            [
                label,
                f"{row['fps']:g}",
                *(readable.number(row[key]) for key in ("frames", "dropped", "missed")),
                readable.percent(row["on_time"]),
                *(readable.milliseconds(row[key]) for key in ("p50_ms", "p90_ms", "p99_ms", "max_ms", "jitter_ms")),
            ]
            for label, row in rows
        ],
    )
    for rule in dict.fromkeys(row["rule"] for _, row in rows):
        yield element("p", f"Rule: {rule}.", class_="quiet")


def _pipeline(timed: Sequence[Entry]) -> Iterator[Html]:
    for entry in timed:
        pipeline, taken = entry["predicate"].get("preprocess"), entry["predicate"]["latency"].get("preprocess_ms")
        if pipeline is None or taken is None:
            continue
        clean, stay = pipeline["clean"], readable.percent(pipeline["same_prediction"])
        yield element(
            "p",
            element("strong", entry["label"]),
            f" was preprocessed by {pipeline['name']}: p50 {readable.milliseconds(taken['p50_ms'])}, inside every time "
            f"above. Through it {readable.percent(clean['value'])} of clean images are right "
            f"({readable.counted(clean)}) and {stay} of predictions stay; pixels change by up to "
            f"{readable.number(pipeline['largest_change'])} grey levels.",
        )


def _conditions(latencies: "Sequence[tuple[str, Entry]]") -> Iterator[Html]:
    """How it was measured, one row a property, where that was recorded."""
    known = [(label, latency) for label, latency in latencies if "conditions" in latency]
    if not known:
        return
    properties = dict.fromkeys(key for _, latency in known for key in latency["conditions"])
    rows = [
        [key.replace("_", " "), *(readable.flat(latency["conditions"].get(key)) for _, latency in known)]
        for key in properties
    ]
    again = [latency["asked_again"] for _, latency in known]
    rows.append(["logits asked again", *(f"{asked['different']} of {asked['n']} differ" for asked in again)])
    peaks = [readable.size(latency["memory"]["peak_rss_bytes"]) for _, latency in known]
    rows.append(["most memory of the process", *peaks])
    yield html_table(
        "How latency was measured", [*text_columns("property"), *long_columns(*(label for label, _ in known))], rows
    )
