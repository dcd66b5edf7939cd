"""The options of everything that measures latency, and how they become keys of the config. click only."""

from collections.abc import Callable
from typing import Any

import click

from edge.core.errors import CompressError

SCENARIOS = ("single-stream", "offline", "camera")


def latency_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--scenario`, `--samples`, `--seconds`, `--fps`, `--load`, `--preprocess` and `--frames`."""
    options = [
        click.option("--scenario", metavar="NAME,NAME", help=f"Of {', '.join(SCENARIOS)}; default the first."),
        click.option("--samples", type=int, help="Timed queries of single-stream; default 1000."),
        click.option("--seconds", type=float, help="Time of offline, of a rate of camera, of a size; default 5."),
        click.option("--fps", metavar="N,N", help="Frames a second of camera; default 30."),
        click.option("--load", metavar="N|COMMAND", help="What runs beside it: busy processes, or a command."),
        click.option("--preprocess", metavar="MODULE:FUNCTION", help="Your pipeline between camera and model; timed."),
        click.option("--frames", metavar="FILE.npy", help="Its frames, uint8 (N, …); default its module's frames()."),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def settings(
    scenario: "str | None", samples: "int | None", seconds: "float | None", fps: "str | None", load: "str | None"
) -> dict[str, Any]:
    """Keys of the config's latency section; None where nothing was given."""
    return {
        "scenarios": listed("--scenario", scenario, str),
        "samples": samples,
        "seconds": seconds,
        "fps": listed("--fps", fps, float),
        "load": load,
    }


def batches(text: "str | None") -> dict[str, Any]:
    """`1,8,32`: the first is that of single-stream and camera, several are a sweep."""
    sizes = listed("--batch", text, int)
    if sizes is None:
        return {}
    return {"batch_size": sizes[0], "sweep": sizes if len(sizes) > 1 else []}


def listed(option: str, text: "str | None", kind: Callable[[str], Any]) -> "list[Any] | None":
    """The parts between commas."""
    if text is None:
        return None
    try:
        return [kind(part.strip()) for part in text.split(",")]
    except ValueError:
        wanted = "whole numbers" if kind is int else "numbers"
        raise CompressError(f"{option} {text}: {wanted} with commas between them are needed") from None
