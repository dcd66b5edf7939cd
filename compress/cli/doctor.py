"""`compress doctor`."""

import json
from pathlib import Path

import click

from compress.cli.main import Verb
from compress.cli.options import FOLDER, Name, json_option
from edge.core import targets


@click.command(
    cls=Verb, examples=["compress doctor", "compress doctor --device jetson --sysroot recorded-orin --strict --json"]
)
@click.option("--device", type=Name("device", targets.DEVICES), help="Only the targets of this device.")
@click.option("--sysroot", type=FOLDER, metavar="DIR", help="A tree recorded on another machine; default this one.")
@click.option("--strict", is_flag=True, help="Exit 3 when a pair that is known not to work is installed.")
@json_option()
def doctor(device: "str | None", sysroot: "Path | None", strict: bool, as_json: bool) -> None:
    """Say what is installed, what can be built and run here, what does not go together, and what mends it.

    Every package is imported in a process of its own, so that one that crashes takes nothing with it.
    """
    from edge.core.errors import CheckFailed, CompressError
    from edge.doctor import diagnose, examine
    from edge.doctor.diagnosis import diagnosis_lines

    facts = examine(sysroot or Path("/"))
    if device == "jetson" and facts.jetson is None:
        raise CompressError(
            f"{sysroot or 'this machine'}: no Jetson (no etc/nv_tegra_release); give --sysroot with a tree recorded on "
            f"one, or run it there"
        )
    known = targets.every()
    result = diagnose(facts, known, [target for target in known if device is None or device in target.devices])
    click.echo(json.dumps(result.as_object(), ensure_ascii=False) if as_json else "\n".join(diagnosis_lines(result)))
    if strict and result.broken:
        names_of = ", ".join(finding.name for finding in result.broken)
        click.echo(f"compress: known not to work here: {names_of}; the fix of each is listed above", err=True)
        raise click.exceptions.Exit(CheckFailed.exit_code)  # not raised as a fault: stdout has its one JSON object
