"""The options that verbs share, and how names are checked. click only."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from compress import names, networks
from compress.data import source_names, split_name
from edge.core import errors, plugins
from edge.core.errors import CompressError

FOLDER = click.Path(path_type=Path)  # whether it is a stage is for artifact.read to say, it knows the fix


class Name(click.Choice[str]):
    """One of the names in compress.names; another one is answered with the nearest."""

    def __init__(self, kind: str, known: "Mapping[str, str] | Sequence[str]") -> None:
        super().__init__(list(known))
        self.kind = kind

    def convert(self, value: Any, param: "click.Parameter | None", ctx: "click.Context | None") -> str:
        try:
            return errors.known_name(self.kind, value, tuple(self.choices))
        except CompressError as fault:
            self.fail(str(fault), param, ctx)


class Written(click.ParamType[str]):
    """Text with a form that `check` knows; completion offers the names that it may begin with."""

    def __init__(self, name: str, check: Callable[[str], object], offered: Callable[[], Iterable[str]]) -> None:
        self.name = name
        self.check = check
        self.offered = offered

    def convert(self, value: Any, param: "click.Parameter | None", ctx: "click.Context | None") -> str:
        try:
            self.check(value)
        except CompressError as fault:
            self.fail(str(fault), param, ctx)
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> "list[CompletionItem]":
        return [CompletionItem(name) for name in self.offered() if name.startswith(incomplete)]


class MethodName(click.ParamType["str | list[str]"]):
    """One of the methods, or one and what is added to it, with commas between them."""

    name = "method"

    def convert(self, value: Any, param: "click.Parameter | None", ctx: "click.Context | None") -> "str | list[str]":
        from compress.methods import registry

        try:
            return registry.checked_method(value.split(",") if isinstance(value, str) else value)
        except CompressError as fault:
            self.fail(str(fault), param, ctx)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return f"[{'|'.join(names.method_names())}]"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> "list[CompletionItem]":
        head, comma, last = incomplete.rpartition(",")
        return [CompletionItem(f"{head}{comma}{name}") for name in names.method_names() if name.startswith(last)]


METHOD = MethodName()


def teacher_method_names() -> "tuple[str, ...]":
    """The methods that a teacher is trained by; those of installed packages are imported to be asked."""
    if not plugins.installed("methods"):
        return names.TEACHER_METHODS
    from compress.methods import registry

    return registry.teacher_methods()


#: A dataset, `KIND` or `KIND:PATH`; a model, `NAME` or `NAME+FLAG`.
DATA = Written("data", split_name, source_names)
MODEL = Written("model", networks.checked_model, networks.model_names)
ARCHITECTURE = "NAME, timm:NAME, torchvision:NAME, your module:function or FILE.onnx"


@dataclass(frozen=True)
class Shared:
    """What every stage verb is given beside its own options."""

    out: "Path | None"
    config: "str | None"
    settings: tuple[str, ...]
    seed: "int | None"
    data: "str | None"
    eps: "str | None"
    as_json: bool


def settings_option(what: str) -> Callable[..., Any]:
    return click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help=f"Set a dotted key of {what}.")


def json_option() -> Callable[..., Any]:
    return click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, nothing else there.")


def require_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--require` and `--junit`, as `require` and `junit`."""
    function = click.option("--junit", type=FOLDER, metavar="FILE", help="Write the outcomes as JUnit XML.")(function)
    return click.option(
        "--require", multiple=True, metavar="GATE", help='A gate on the statement, e.g. "robust>=0.3"; else exit 3.'
    )(function)


def training_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--epochs`, `--lr` and `--batch-size`."""
    function = click.option("--batch-size", type=int, help="Images of one step of the optimiser.")(function)
    function = click.option("--lr", type=float, help="Peak learning rate.")(function)
    return click.option("--epochs", type=int, help="Passes over the training split.")(function)


def start_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--weights` and `--key`."""
    function = click.option("--key", metavar="NAME", help="Which weights, of a file that holds several sets.")(function)
    return click.option("--weights", metavar="FILE", help="Checkpoint that its training starts from.")(function)


def extra_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--extra`, handed over as the dotted key of the config that it sets."""

    @functools.wraps(function)
    def named(*, extra: "str | None", **params: Any) -> Any:
        return function(**params, **{"extra.path": extra})

    return click.option(
        "--extra",
        type=DATA,
        metavar="KIND:PATH",
        help="Further images, 0.7 of each batch; or --set extra.fraction=0.5.",
    )(named)


def pace_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--budget` and `--precision`."""
    function = click.option(
        "--precision",
        type=click.Choice(["auto", "float32", "bfloat16"]),
        help="Arithmetic of the training passes; auto: what is measured to be faster here.",
    )(function)
    return click.option(
        "--budget", metavar="TIME", help="End training after 90s, 20m or 2h, with its schedule complete."
    )(function)


def stage_options(out_default: str = "") -> Callable[..., Any]:
    """The options of every stage verb, handed over as one `shared`."""
    out_help = f"Folder of the stage; default {out_default}." if out_default else "Folder of the stage."
    options = [
        click.option("--out", type=FOLDER, required=not out_default, metavar="DIR", help=out_help),
        click.option("--config", metavar="FILE", help="Run config whose shared part and section are the base."),
        settings_option("the stage's config"),
        click.option("--seed", type=int, help="Seed of weights, batch order and attack starts."),
        click.option("--data", type=DATA, help=f"The dataset, KIND or KIND:PATH ({', '.join(source_names())})."),
        click.option("--eps", help="Radius on pixels in [0, 1], e.g. 8/255."),
        json_option(),
    ]

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def gather(**params: Any) -> Any:
            shared = Shared(**{field.name: params.pop(field.name) for field in fields(Shared)})
            return function(shared=shared, **params)

        decorated: Callable[..., Any] = gather
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate


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


def adopt_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of the section `adopt`, each handed over as the dotted key that it sets."""

    @functools.wraps(function)
    def named(**params: Any) -> Any:
        return function(**{f"adopt.{key}" if key in ADOPT else key: value for key, value in params.items()})

    decorated = named
    for option in reversed(ADOPT.values()):
        decorated = option(decorated)
    return decorated


ADOPT = {
    "normalize": click.option(
        "--normalize", metavar="NAME", help="Of an ONNX file: none, cifar10, cifar100, imagenet, half, m/s or auto."
    ),
    "layout": click.option(
        "--layout", type=click.Choice(["auto", "nchw", "nhwc"]), help="Of its images; default as its sizes show."
    ),
    "range": click.option("--range", type=click.Choice(["1", "255"]), help="Its largest pixel; 255 where it is uint8."),
    "channels": click.option("--channels", type=click.Choice(["rgb", "bgr"]), help="Of its images; default rgb."),
    "output": click.option("--output", metavar="NAME", help="Which of its outputs are the logits."),
    "labels": click.option("--labels", metavar="FILE", help="Its class names in its order; default its metadata."),
}


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


def latency_settings(
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


def batch_settings(text: "str | None") -> dict[str, Any]:
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
