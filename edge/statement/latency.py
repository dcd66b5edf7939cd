"""What a statement says of latency beyond single queries, a line each."""

from collections.abc import Iterator, Mapping
from typing import Any


def latency_lines(predicate: Mapping[str, Any]) -> Iterator[str]:
    """Offline, camera, load and preprocessing, of what was measured."""
    latency = predicate["latency"]
    if row := latency.get("offline"):
        size, seconds = row["batch_size"], row["seconds"]
        yield f"offline     {row['images_per_s']:,.0f} images/s at batch {size} over {seconds:.1f} s"
    for row in latency.get("camera", []):
        times = f"p50 {row['p50_ms']:.3f} ms, p99 {row['p99_ms']:.3f} ms from the scheduled arrival"
        late = f"{row['dropped']} dropped, {row['missed']} later than {row['deadline_ms']:.1f} ms"
        yield f"camera      {row['fps']:g} frames/s: {times}; of {row['frames']} frames {late}"
    if load := latency.get("conditions", {}).get("load"):
        yield f"load        {beside(load)} beside all that was timed"
    if pipeline := predicate.get("preprocess"):
        taken, right = latency["preprocess_ms"]["p50_ms"], pipeline["clean"]["value"]
        stay = f"{right:.1%} of clean images right, {pipeline['same_prediction']:.1%} of predictions stay"
        yield f"preprocess  {pipeline['name']}: p50 {taken:.3f} ms, inside the latency; through it {stay}"


def beside(load: Mapping[str, Any]) -> str:
    """What ran beside a measurement: `2 busy processes`, or the command."""
    if "command" in load:
        return str(load["command"])
    count = load["processes"]
    return f"{count} busy process{'es' if count > 1 else ''}"
