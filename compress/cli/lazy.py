"""Commands that end their help with examples, and a group that imports a verb only when it is used."""

import builtins
import importlib
import keyword
import os
from collections.abc import Mapping, Sequence
from typing import Any

import click

from edge.core import errors
from edge.core.errors import CompressError


class _Examples(click.Command):
    """A command whose help ends with command lines that work."""

    def __init__(self, *args: Any, examples: Sequence[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Example"):
            for line in self.examples:
                formatter.write(f"{'':>{formatter.current_indent}}{line}\n")


class Verb(_Examples):
    """One verb of the command line; `processes`: torchrun may start it several times, to work together."""

    def __init__(self, *args: Any, processes: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.processes = processes

    def invoke(self, ctx: click.Context) -> Any:
        started = os.environ.get("WORLD_SIZE", "1")
        if started == "1":
            return super().invoke(ctx)
        if not self.processes:
            raise CompressError(f"{ctx.command_path} works as one process, torchrun started {started}; leave it out")
        from compress.numerics import ranks
        from edge.core import interrupt

        interrupt.instead.append(ranks.instead)
        with ranks.started():
            return super().invoke(ctx)


class LazyGroup(_Examples, click.Group):
    """A group over `verbs`: name → one line of help. A verb is the command of its own name in `package.NAME`.

    Names that Python has taken (`import`, `list`) end in an underscore there.
    """

    def __init__(self, *args: Any, verbs: Mapping[str, str], package: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.verbs = verbs
        self.package = package

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> "click.Command | None":
        if cmd_name not in self.verbs:
            return None
        module = f"{cmd_name}_" if keyword.iskeyword(cmd_name) or hasattr(builtins, cmd_name) else cmd_name
        command = getattr(importlib.import_module(f"{self.package}.{module}"), module)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The verbs from the table: importing each for its help would cost what laziness saves."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self.verbs.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> "tuple[str | None, click.Command | None, list[str]]":
        name = args[0]
        if name not in self.verbs and not ctx.resilient_parsing:
            ctx.fail(
                f"no command {name!r}{errors.nearest_name(name, list(self.verbs))} (known: {', '.join(self.verbs)})"
            )
        return super().resolve_command(ctx, args)
