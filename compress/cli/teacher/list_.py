"""`compress teacher list`."""

import json

import click

from compress.cli.lazy import Verb
from compress.cli.options import json_option


@click.command(
    name="list", cls=Verb, examples=["compress teacher list", "compress teacher list --dataset cifar100 --json"]
)
@click.option("--dataset", type=click.Choice(["cifar10", "cifar100"]), help="Only one of the two zoos.")
@json_option()
def list_(dataset: "str | None", as_json: bool) -> None:
    """The published robust models known by name: RobustBench's L∞ zoos for CIFAR-10 and CIFAR-100, ε = 8/255.

    Accuracies as that leaderboard publishes them. Native: built here; otherwise the robustbench package builds it.
    """
    from compress.zoo.catalog import entries
    from edge.core.readable import table

    chosen = [entry for entry in entries() if dataset in (None, entry.dataset)]
    if as_json:
        rows = [
            {
                "source": entry.source,
                "architecture": entry.architecture,
                "model": entry.spec,
                "parameters": entry.parameters or None,
                "clean": entry.clean / 100,
                "autoattack": entry.autoattack / 100,
                "native": entry.native,
            }
            for entry in chosen
        ]
        click.echo(json.dumps(rows, ensure_ascii=False))
        return
    cells = [
        [
            entry.source,
            entry.architecture,
            f"{entry.parameters / 1e6:.1f} M" if entry.parameters else "?",
            f"{entry.clean:.2f} %",
            f"{entry.autoattack:.2f} %",
            "native" if entry.native else "robustbench package",
        ]
        for entry in chosen
    ]
    click.echo("\n".join(table(["source", "architecture", "parameters", "clean", "AutoAttack", "built by"], cells)))
