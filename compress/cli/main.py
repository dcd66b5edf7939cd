"""The group of all verbs, each imported when it is used: help is built from this file alone."""

import builtins
import importlib
import keyword
import os
from collections.abc import Mapping, Sequence
from typing import Any

import click

from compress import __version__
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
    """A group over `verbs`: name → one line of help.

    A verb is the command of its own name in `package.NAME`, or, with `module`, in that module. Names that Python has
    taken (`import`, `list`) end in an underscore there.
    """

    def __init__(
        self, *args: Any, verbs: Mapping[str, str], package: str = "", module: str = "", **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.verbs = verbs
        self.package, self.module = package, module

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> "click.Command | None":
        if cmd_name not in self.verbs:
            return None
        name = f"{cmd_name}_" if keyword.iskeyword(cmd_name) or hasattr(builtins, cmd_name) else cmd_name
        command = getattr(importlib.import_module(self.module or f"{self.package}.{name}"), name)
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


VERBS = {
    "demo": "The built-in quickstart, from the teacher to the report.",
    "run": "The whole chain that a config describes; only what is missing or stale is made.",
    "init": "Write a starter config: every key with its default and meaning.",
    "teacher": "Obtain a robust teacher.",
    "distill": "Train a lightweight student from a robust teacher.",
    "quantize": "Quantize a student to INT8, keeping its robustness.",
    "evaluate": "Attack a torch model by an ensemble: worst case, per attack, per class.",
    "analyze": "Robust accuracy against the feature variance gap, over radii and across models.",
    "export": "Write the file that is shipped.",
    "attack": "Make the adversarial images that artifacts are judged by.",
    "verify": "Execute an exported artifact: robustness, agreement, latency.",
    "bench": "Measure latency and throughput alone: single queries, batches, a camera.",
    "bundle": "Write the device side as one file that boards run.",
    "statement": "Read, sign and check the statement of a verified artifact.",
    "inspect": "Say what an artifact holds: contract, every layer's precision and size, lineage.",
    "report": "Write the HTML report of a run or a verified stage.",
    "doctor": "Say what can be built and run here, what does not go together, and its fix.",
    "completion": "Print the completion script of a shell.",
}


@click.group(
    cls=LazyGroup,
    verbs=VERBS,
    package="compress.cli",
    invoke_without_command=True,
    examples=["compress demo", "compress run quickstart --out runs/first"],
)
@click.version_option(__version__, message="robust-compress %(version)s")
@click.pass_context
def main(context: click.Context) -> None:
    """Compress an adversarially robust image classifier and verify the robustness of what is shipped.

    Results go to stdout, progress to stderr. Exit codes: 0 done, 1 our fault, 2 the input's fault or the machine's
    (one line says what), 3 a requirement or check failed, 130 interrupted (the same command resumes).
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
