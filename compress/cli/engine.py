"""How an engine is built, as options of `compress export`, by the dotted keys of the config that they set."""

import functools
from collections.abc import Callable
from typing import Any

import click

from compress.cli.options import FOLDER

LEVELS = ("none", "ampere+", "same-compute-capability")


class BatchRange(click.ParamType["tuple[int, int, int]"]):
    """`MIN:OPT:MAX`, or one number for all three."""

    name = "batch"

    def convert(
        self, value: Any, param: "click.Parameter | None", ctx: "click.Context | None"
    ) -> "tuple[int, int, int]":
        parts = str(value).split(":")
        if len(parts) not in (1, 3) or not all(part.isdigit() for part in parts):
            self.fail(
                f"{value!r} is no range of batch sizes; write MIN:OPT:MAX, e.g. 1:1:64, or one number", param, ctx
            )
        low, opt, high = (int(part) for part in (parts * 3)[:3])
        return low, opt, high


def engine_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of the sections `batch` and `engine`; each is None where it was not given."""

    @functools.wraps(function)
    def named(
        *,
        batch: "tuple[int, int, int] | None",
        workspace: "int | None",
        timing_cache: "Any | None",
        hardware_compatibility: "str | None",
        version_compatible: bool,
        dla: "int | None",
        compute_capability: "tuple[str, ...]",
        rebuilds: "int | None",
        deferred: bool,
        **params: Any,
    ) -> Any:
        low, opt, high = batch or (None, None, None)
        return function(
            **params,
            **{
                "batch.min": low,
                "batch.opt": opt,
                "batch.max": high,
                "engine.workspace_mib": workspace,
                "engine.timing_cache": None if timing_cache is None else str(timing_cache),
                "engine.hardware_compatibility": hardware_compatibility,
                "engine.version_compatible": version_compatible or None,
                "engine.dla": dla,
                "engine.compute_capabilities": list(compute_capability) or None,
                "engine.rebuilds": rebuilds,
                "engine.deferred": deferred or None,
            },
        )

    decorated = named
    for option in reversed(OPTIONS):
        decorated = option(decorated)
    return decorated


OPTIONS = (
    click.option("--batch", type=BatchRange(), metavar="MIN:OPT:MAX", help="Images of one call of an engine."),
    click.option("--workspace", type=int, metavar="MIB", help="Most scratch memory of an engine's layer."),
    click.option("--timing-cache", type=FOLDER, metavar="FILE", help="Kernel timings, read and extended; of one GPU."),
    click.option("--hardware-compatibility", type=click.Choice(LEVELS), help="Other GPUs that it may run on; slower."),
    click.option("--version-compatible", is_flag=True, help="Runs on later TensorRT versions too; may be slower."),
    click.option("--dla", type=int, metavar="CORE", help="DLA core of a Jetson that has one; fp16 only."),
    click.option(
        "--compute-capability", multiple=True, metavar="SM", help="GPU of tensorrt-rtx, e.g. 8.6; repeatable."
    ),
    click.option("--rebuilds", type=int, metavar="K", help="Build K times, say how builds differ, keep the first."),
    click.option("--deferred", is_flag=True, help="Build no engine here; the device does."),
)
