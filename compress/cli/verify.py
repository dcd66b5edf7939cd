"""`compress verify`."""

from pathlib import Path
from typing import Any

import click

from compress import names
from compress.cli.lazy import Verb
from compress.cli.options import FOLDER, Name, Shared, require_options, stage_options


@click.command(
    cls=Verb,
    examples=[
        'compress verify runs/exported --attack-set runs/attack-set --device cpu --require "robust>=0.3"',
        "compress verify runs/exported --attack-set runs/attack-set --samples 5000 --junit verify.xml --json",
    ],
)
@click.argument("exported", type=FOLDER)
@click.option("--attack-set", type=FOLDER, required=True, metavar="DIR", help="Attack set to replay.")
@click.option("--device", type=Name("device", names.DEVICES), help="Where it is executed; default cpu.")
@require_options
@click.option("--threads", type=int, help="Threads of the runtime; 0: all cores.")
@click.option("--samples", type=int, help="Timed queries.")
@click.option("--square-queries", type=int, help="Queries an image of the Square attack; 0: without it.")
@stage_options(out_default="EXPORTED-DEVICE-verified, beside EXPORTED")
def verify(
    shared: Shared,
    exported: Path,
    attack_set: Path,
    require: "tuple[str, ...]",
    junit: "Path | None",
    samples: "int | None",
    **flags: Any,
) -> None:
    """Execute an exported artifact: replay the attack set, attack it without gradients, measure its latency.

    Every figure is of the bytes that the statement names. A gate compares the worse end of a figure's interval.
    """
    from compress.chain import STATEMENT
    from compress.cli import gates, stage
    from compress.cli.show import head
    from compress.config import VerifyConfig
    from edge import gate, statement

    requirements = [gate.parse(text) for text in require]
    flags["latency.samples"] = samples
    settled = stage.settle(VerifyConfig, "verify", shared, flags, stage.inherited(exported, ["exported"]))
    out = shared.out or exported.with_name(f"{exported.resolve().name}-{settled.device}-verified")
    inputs = {"exported": exported, "attack-set": attack_set}
    verified, complete = stage.run("edge.verify", settled.semantic(), inputs, out)

    stated = statement.read(verified.file(STATEMENT))
    outcomes = gate.judge(stated, requirements)
    gates.write_junit(outcomes, junit)
    if shared.as_json:
        click.echo(stage.as_json(verified, complete, requirements=gates.as_objects(outcomes)))
    else:
        click.echo(head(verified, complete))
        click.echo("\n".join([statement.text(stated).rstrip(), *(outcome.line() for outcome in outcomes)]))
    gates.leave(outcomes)
