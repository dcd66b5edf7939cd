"""A measurement as a few readable lines."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edge.core.readable import table
from edge.statement.statement import MachineWarning
from edge.statement.wording import load_phrase, machine_lines

Result = Mapping[str, Any]
TITLES = ["artifact", "scenario", "batch", "p50", "p90", "p99", "images/s", ""]


def bench_lines(result: Result) -> list[str]:
    """A row a scenario and size, then start-up, memory and parts of each artifact, then how they compare."""
    names = [each["name"] for each in result["artifacts"]]
    # The last parts of the paths, or the paths themselves where these are the same
    short = [Path(name).name for name in names]
    shown = short if len(set(short)) == len(short) else list(names)
    labels = dict(zip(names, shown, strict=True))
    rows = [[labels[each["name"]], *row] for each in result["artifacts"] for row in _rows(each["latency"])]
    lines = [*table(TITLES, rows), ""]
    lines += [f"{labels[each['name']]}: {line}" for each in result["artifacts"] for line in _about(each)]
    lines += [_compared(row, labels) for row in result["compared"]]
    lines += machine_lines(result["machine"], [MachineWarning(**row) for row in result["warnings"]])
    load = result["artifacts"][0]["latency"]["conditions"]["load"]
    loaded = "" if load is None else f"; beside it: {load_phrase(load)}"
    return [*lines, f"queries: {result['queries']}{loaded}; {result['nature']}"]


def _rows(latency: Result) -> Iterator[list[str]]:
    """Scenario, batch size, p50, p90, p99, images a second, and what else is to be said."""
    size = str(latency["batch_size"])
    if "n" in latency:
        times = _times(latency, "p50_ms", "p90_ms", "p99_ms")
        yield ["single-stream", size, *times, _rate(latency), f"{latency['n']} queries"]
    for row in latency.get("sweep", []):
        yield ["batch", str(row["batch_size"]), *_times(row, "p50_ms", None, "p99_ms"), _rate(row), _queries(row)]
    if row := latency.get("offline"):
        yield ["offline", str(row["batch_size"]), *_times(row, "p50_ms", None, "p99_ms"), _rate(row), _queries(row)]
    for row in latency.get("camera", []):
        noticed = f"of {row['frames']} frames {row['dropped']} dropped, {row['missed']} late"
        yield [f"camera {row['fps']:g} fps", size, *_times(row, "p50_ms", "p90_ms", "p99_ms"), "", noticed]


def _queries(row: Result) -> str:
    return f"{row['n']} queries in {row['seconds']:.1f} s"


def _times(row: Result, *names: "str | None") -> list[str]:
    return [f"{row[name]:.3f} ms" if name else "" for name in names]


def _rate(row: Result) -> str:
    return f"{row['images_per_s']:,.0f}"


def _about(each: Result) -> Iterator[str]:
    latency, runtime = each["latency"], each["runtime"]
    yield (
        f"opened in {latency['cold_start_ms']:.1f} ms, first query {latency['first_inference_ms']:.2f} ms, "
        f"at most {latency['memory']['peak_rss_bytes'] / 2**20:.0f} MiB in this process; "
        f"{runtime['name']} {runtime['version']}, {runtime['provider']}, {runtime['threads']} threads"
    )
    if "preprocess_ms" in latency:
        yield f"preprocessing p50 {latency['preprocess_ms']['p50_ms']:.3f} ms, inside every time above"
    if split := latency.get("parts"):
        yield "medians " + ", ".join(f"{key.removesuffix('_ms')} {split[key]:.3f} ms" for key in split if key != "n")
    for alarm in each["alarms"]:
        if alarm["fired"]:
            yield f"ALARM {alarm['name']}: {alarm['meaning']}"


def _compared(row: Result, labels: Mapping[str, str]) -> str:
    low, high = row["interval"]
    return (
        f"{labels[row['name']]} takes {row['ratio']:.3f} times as long as {labels[row['to']]}, {row['what']} "
        f"({row['level']:.0%} interval {low:.3f} to {high:.3f}, {row['turns']} turns)"
    )
