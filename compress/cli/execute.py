"""From a command line to an exit code: every fault becomes one line on stderr."""

import os
import shlex
import sys
from collections.abc import Sequence

import click

from compress.cli.main import main
from edge.core import errors, streams

PROGRAM = "compress"
COMPLETE = "_COMPRESS_COMPLETE"


def execute(args: Sequence[str]) -> int:
    """Run `compress ARGS` in this process and return its exit code (design: 0, 1, 2, 3; 130 is the signal handler's).

    The user's errors are one line on stderr, with `--json` also `{"error", "exit_code"}` on stdout; ours a traceback.
    """
    try:
        code = _invoke(args)
        sys.stdout.flush()
        return code
    except click.ClickException as fault:
        return streams.tell_fault(usage_line(fault), 2, args)
    except Exception as fault:
        return streams.exit_code_of(fault, args)


def _invoke(args: Sequence[str]) -> int:
    if instruction := os.environ.get(COMPLETE):
        from click.shell_completion import shell_complete

        return shell_complete(main, {}, PROGRAM, COMPLETE, instruction)
    try:
        with main.make_context(PROGRAM, list(args)) as context:
            from edge.core import artifact  # here, so that `compress --help` does without it

            artifact.COMMAND.set(shlex.join([PROGRAM, *sys.argv[1:]]))  # as a person would type it
            main.invoke(context)
    except click.exceptions.Exit as left:
        return left.exit_code
    return 0


def usage_line(fault: click.ClickException) -> str:
    """What click found wrong with a command line, in one line: what, the nearest that exists, where to read on."""
    context = getattr(fault, "ctx", None)
    see = f"; see `{context.command_path} --help`" if context else ""
    if isinstance(fault, click.NoSuchOption):
        known = [name for param in context.command.get_params(context) for name in param.opts] if context else []
        return f"no option {fault.option_name}{errors.nearest_name(fault.option_name, known)}{see}"
    if isinstance(fault, click.MissingParameter) and fault.param:
        return f"{_label(fault.param)} is missing{see}"
    if isinstance(fault, click.BadParameter) and fault.param:
        return f"{_label(fault.param)}: {_plain(fault.message)}{see}"
    return f"{_plain(fault.format_message())}{see}"


def _label(param: click.Parameter) -> str:
    return param.opts[0] if isinstance(param, click.Option) else str(param.human_readable_name)


def _plain(message: str) -> str:
    return " ".join(message.split()).rstrip(".")
