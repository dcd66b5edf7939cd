"""`compress completion`."""

import click

from compress.cli.main import Verb


@click.command(
    cls=Verb,
    examples=[
        'eval "$(compress completion bash)"',
        "compress completion fish > ~/.config/fish/completions/compress.fish",
    ],
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that makes SHELL complete verbs, options and names."""
    from click.shell_completion import get_completion_class

    from compress.cli.execute import COMPLETE, PROGRAM
    from compress.cli.main import main

    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(main, {}, PROGRAM, COMPLETE)
    click.echo(script.source_template % script.source_vars())  # `source` would run the shell to ask its version
