"""`compress statement`: what a verified folder states, and whether that can be trusted."""

import click

from compress.cli.lazy import LazyGroup


@click.group(
    cls=LazyGroup,
    verbs={
        "show": "Print a statement as text.",
        "check": "Compare a folder with its statement, the artifact's bytes and a signature.",
        "sign": "Sign a verified folder.",
        "keygen": "Make a key to sign with.",
    },
    package="compress.cli.statement",
    invoke_without_command=True,
    examples=[
        "compress statement show runs/exported-cpu-verified",
        "compress statement check runs/exported-cpu-verified --key signing.key.pub",
    ],
)
@click.pass_context
def statement(context: click.Context) -> None:
    """Read, sign and check the robustness statement of a verified folder."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
