"""Latency beyond single queries: batch sizes, a camera, preprocessing, parts of a query, and how it was measured."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from compress.report import svg
from compress.report.markup import Column, Html, element, table
from edge.core import readable

Entry = Mapping[str, Any]
PARTS = {"h2d_ms": "copy in", "compute_ms": "computation", "d2h_ms": "copy out", "host_ms": "host", "total_ms": "whole"}


def scenarios(timed: Sequence[Entry]) -> Iterator[Html]:
    """A chart, table or sentence for each thing that any of the artifacts was asked for; nothing for the rest."""
    found = [(str(entry["label"]), dict(entry["predicate"]["latency"])) for entry in timed]
    yield from _sizes(found)
    yield from _camera(found)
    yield from _parts(found)
    yield from _pipeline(timed)
    yield from _conditions(found)


def _sizes(found: "Sequence[tuple[str, Entry]]") -> Iterator[Html]:
    """Throughput by batch size: of the sweep, and offline's own size."""
    rows = [(label, row) for label, latency in found for row in _by_size(latency)]
    if not rows:
        return
    sizes = sorted({row["batch_size"] for _, row in rows})
    groups = [
        (
            f"{size} image{'s' if size > 1 else ''} a call",
            [(row["images_per_s"], _rate(row, label)) for label, row in rows if _is(row, size)],
        )
        for size in sizes
    ]
    yield element(
        "figure",
        element("figcaption", element("strong", "Throughput by batch size"), " images a second, calls back to back."),
        svg.amounts(groups, f"Images a second by batch size, {', '.join(map(str, sizes))}"),
    )
    columns = [Column("artifact"), *(Column(title, "number") for title in ("batch", "images/s", "p50", "p99", "calls"))]
    yield table(
        "Latency and throughput by batch size",
        columns,
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


def _is(row: Entry, size: int) -> bool:
    return bool(row["batch_size"] == size)


def _rate(row: Entry, label: str) -> str:
    return f"{row['images_per_s']:,.0f} · {label}"


def _camera(found: "Sequence[tuple[str, Entry]]") -> Iterator[Html]:
    rows = [(label, row) for label, latency in found for row in latency.get("camera", [])]
    if not rows:
        return
    titles = ("frames/s", "frames", "dropped", "late", "in time", "p50", "p90", "p99", "longest", "jitter")
    yield table(
        "Camera: latency from the scheduled arrival of a frame",
        [Column("artifact"), *(Column(title, "number") for title in titles)],
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


def _parts(found: "Sequence[tuple[str, Entry]]") -> Iterator[Html]:
    rows = [(label, latency["parts"]) for label, latency in found if "parts" in latency]
    if rows:
        yield table(
            "Where a query's time goes, medians",
            [Column("artifact"), *(Column(title, "number") for title in PARTS.values())],
            [[label, *(readable.milliseconds(row[key]) for key in PARTS)] for label, row in rows],
        )


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


def _conditions(found: "Sequence[tuple[str, Entry]]") -> Iterator[Html]:
    """How it was measured, one row a property, where that was recorded."""
    known = [(label, latency) for label, latency in found if "conditions" in latency]
    if not known:
        return
    properties = dict.fromkeys(key for _, latency in known for key in latency["conditions"])
    rows = [
        [key.replace("_", " "), *(readable.flat(latency["conditions"].get(key)) for _, latency in known)]
        for key in properties
    ]
    rows.append(
        [
            "logits asked again",
            *(f"{one['asked_again']['different']} of {one['asked_again']['n']} differ" for _, one in known),
        ]
    )
    rows.append(["most memory of the process", *(readable.size(one["memory"]["peak_rss_bytes"]) for _, one in known)])
    yield table("How latency was measured", [Column("property"), *(Column(label, "long") for label, _ in known)], rows)
