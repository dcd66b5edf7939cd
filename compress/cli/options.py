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
