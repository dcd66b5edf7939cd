"""`compress teacher`: where the robust teacher comes from."""

import click

from compress.cli.lazy import LazyGroup


@click.group(
    cls=LazyGroup,
    verbs={
        "import": "Bring in a teacher that others trained, checked.",
        "list": "The published robust models known by name.",
        "train": "Train a teacher from scratch.",
    },
    package="compress.cli.teacher",
    invoke_without_command=True,
    examples=[
        "compress teacher import robustbench:Wang2023Better_WRN-28-10 --data cifar10 --out runs/teacher",
        "compress teacher train --data digits --model wrn-10-4 --out runs/teacher",
    ],
)
@click.pass_context
def teacher(context: click.Context) -> None:
    """Obtain a robust teacher."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
