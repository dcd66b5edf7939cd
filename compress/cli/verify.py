"""`compress verify`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from compress.cli import boards, options
from compress.cli.main import Verb
from compress.cli.options import FOLDER, Name, Shared, require_options, stage_options
from edge.core import targets
from edge.core.artifact import MANIFEST
from edge.core.errors import CompressError

if TYPE_CHECKING:
    from compress.config import VerifyConfig


@click.command(
    cls=Verb,
    examples=[
        'compress verify runs/exported --attack-set runs/attack-set --device cpu --require "robust>=0.3"',
        "compress verify runs/exported --attack-set runs/attack-set --samples 5000 --junit verify.xml --json",
        "compress verify runs/int8 --attack-set runs/attack-set --against released --margin 1 --annotations github",
        "compress verify runs/float runs/int8 --attack-set runs/attack-set --out runs/verified",
        "compress verify runs/exported --attack-set runs/attack-set --device jetson --host user@orin --host user@nano",
    ],
)
@click.argument("exported", type=FOLDER, nargs=-1, required=True)
@click.option("--attack-set", type=FOLDER, required=True, metavar="DIR", help="Attack set to replay.")
@click.option("--device", type=Name("device", targets.DEVICES), help="Where it is executed; default cpu.")
@boards.host_options(multiple=True)
@require_options
@click.option("--allow-alarm", "allow", multiple=True, metavar="NAME", help="Let this alarm, or warning, pass a gate.")
@click.option("--against", type=FOLDER, metavar="BASELINE", help="Verified folder or its statement; worse: exit 3.")
@click.option("--margin", type=float, metavar="POINTS", help="What counts as worse, in percentage points; default 0.5.")
@click.option("--strict", is_flag=True, help="Exit 3 on an inconclusive comparison, and on warnings too.")
@click.option("--annotations", type=click.Choice(["github"]), help="Print the outcomes as workflow commands.")
@click.option("--budget", metavar="TIME", help="For attacks without gradients, 60s or 20m; what is open then is said.")
@click.option("--threads", type=int, help="Threads of the runtime; 0: all cores.")
@options.latency_options
@click.option("--sweep", metavar="N,N", help="Batch sizes of which latency and throughput are measured as well.")
@click.option("--square-queries", type=int, help="Queries an image of the Square attack; 0: without it.")
@stage_options(out_default="EXPORTED-DEVICE-verified, beside EXPORTED; of several, a folder for these")
def verify(
    shared: Shared,
    exported: "tuple[Path, ...]",
    attack_set: Path,
    hosts: "tuple[str, ...]",
    python: "str | None",
    require: "tuple[str, ...]",
    allow: "tuple[str, ...]",
    against: "Path | None",
    margin: "float | None",
    strict: bool,
    junit: "Path | None",
    annotations: "str | None",
    scenario: "str | None",
    samples: "int | None",
    seconds: "float | None",
    fps: "str | None",
    load: "str | None",
    sweep: "str | None",
    **flags: Any,
) -> None:
    """Execute exported artifacts: replay the attack set, attack them without gradients, measure their latency.

    Every figure is of the bytes that the statement names. A gate compares the worse end of a figure's interval, and an
    alarm that fired fails it. Several artifacts stand side by side in one table.
    """
    from compress.cli import gates, stage
    from compress.cli.show import head, side_by_side
    from compress.config import VerifyConfig
    from compress.stages import verify as verification
    from edge.statement.gate import GateJudgement, GateTerms

    terms = GateTerms.read(require, allow, against, margin, strict)
    timing = options.latency_settings(scenario, samples, seconds, fps, load) | {
        "sweep": options.listed("--sweep", sweep, int)
    }
    flags |= {f"latency.{key}": value for key, value in timing.items()}
    if hosts:
        flags["device"] = flags["device"] or "jetson"
    settled = [
        stage.settle(VerifyConfig, "verify", shared, flags, _inherited(folder, attack_set)) for folder in exported
    ]
    for config in settled:
        boards.check_device(config.device, hosts)
    asked = [(host, *pair) for pair in zip(exported, settled, strict=True) for host in hosts or ("",)]
    places = _places(asked, shared.out)
    if hosts:
        there = [
            (host, config.semantic(), folder, out) for (host, folder, config), out in zip(asked, places, strict=True)
        ]
        verified = boards.verify(there, attack_set, python)
    else:
        verified = []
        for (_, folder, config), out in zip(asked, places, strict=True):
            complete = (out / MANIFEST).is_file()
            made = verification.run(config.semantic(), verification.VerifyInputs(folder, attack_set), out)
            verified.append((made, complete))
    judged = [(made, complete, GateJudgement.of(made.path, terms)) for made, complete in verified]

    several = len(judged) > 1
    cases = [case for made, _, judgement in judged for case in judgement.cases(f"{made.path.name}: " * several)]
    gates.write_junit(cases, junit)
    if shared.as_json:
        objects = [stage.as_object(made, complete, **gates.judged(judgement)) for made, complete, judgement in judged]
        click.echo(json.dumps(objects if several else objects[0], ensure_ascii=False))
    else:
        for made, complete, judgement in judged:
            click.echo("\n".join([head(made, complete), *judgement.lines()]))
        if several:
            click.echo("\n".join(side_by_side([(made.path.name, judgement.stated) for made, _, judgement in judged])))
    gates.annotate(cases, annotations, as_json=shared.as_json)
    gates.leave(cases)


def _places(asked: "list[tuple[str, Path, VerifyConfig]]", out: "Path | None") -> list[Path]:
    """The folder of each verified stage; no two of them the same."""
    named = [
        "-".join(filter(None, (folder.resolve().name, config.device, boards.short(host), "verified")))
        for host, folder, config in asked
    ]
    if len(asked) == 1:
        return [out or asked[0][1].with_name(named[0])]
    places = [(out or folder.parent) / name for (_, folder, _), name in zip(asked, named, strict=True)]
    for place in places:
        if places.count(place) > 1:
            raise CompressError(f"{place}: two artifacts would be verified into it; give each another folder name")
    return places


def _inherited(exported: Path, attack_set: Path) -> dict[str, Any]:
    """What the exported stage was made with; the attack set has the radius that an adopted file lacks."""
    from compress.cli import stage

    own = stage.inherited(exported, ["exported"])
    return stage.inherited(attack_set, ["attack-set"], ["threat"]) | own
