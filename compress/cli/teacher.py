"""`compress teacher`: where the robust teacher comes from."""

import json
from typing import Any

import click

from compress.cli.main import LazyGroup, Verb
from compress.cli.options import (
    ARCHITECTURE,
    MODEL,
    Name,
    Shared,
    extra_option,
    json_option,
    pace_options,
    stage_options,
    start_options,
    teacher_method_names,
    training_options,
)


@click.group(
    cls=LazyGroup,
    verbs={
        "import": "Bring in a teacher that others trained, checked.",
        "list": "The published robust models known by name.",
        "train": "Train a teacher from scratch.",
    },
    module="compress.cli.teacher",
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


@click.command(
    name="import",
    cls=Verb,
    examples=[
        "compress teacher import robustbench:Chen2021LTD_WRN34_10 --data cifar10 --out runs/teacher",
        "compress teacher import checkpoint.pt --data imagefolder:images.tar.xz --images 1000 --out runs/teacher",
        "compress teacher import teacher.onnx --data npz:images.npz --out runs/teacher",
        "compress teacher import robustbench:Zhang2019Theoretically --weights trades.pt --no-check --out runs/t",
    ],
)
@click.argument("source")
@click.option("--weights", metavar="FILE", help="Checkpoint to take, for a SOURCE that is a name or a factory.")
@click.option("--models", metavar="DIR", help="Where RobustBench's DATASET/Linf/NAME.pt lie; default models.")
@click.option("--arch", metavar="NAME+FLAG", help="Architecture, where the weights fit several.")
@click.option("--normalize", metavar="NAME", help="Input normalisation: none, cifar10, cifar100, imagenet, half, m/s.")
@click.option("--key", metavar="NAME", help="Which weights, of a file that holds several sets.")
@click.option("--image-size", metavar="N|HxW", help="Size of its images, without --data; default 32.")
@click.option("--check/--no-check", default=None, help="Measure clean and robust accuracy; default with --data.")
@click.option("--attack", type=click.Choice(["pgd", "ensemble"]), help="Attack of the check; default pgd.")
@click.option("--images", type=int, help="Test images of the check; default 256.")
@click.option("--steps", type=int, help="PGD steps of the check; default 20.")
@stage_options()
def import_(shared: Shared, **flags: Any) -> None:
    """Bring in a teacher that others trained: robustbench:NAME, a file, hf:OWNER/REPO/FILE, timm:, torchvision:, …

    Nothing in a file is executed. Architecture and input normalisation are read off the weights where they show;
    the check compares with the published figures and names what explains a gap. Without --data nothing is checked.
    """
    from compress.cli.stage import place, settle_import, show
    from compress.stages import teacher_import

    settled = settle_import(shared, flags)
    out, complete = place(shared)
    show(teacher_import.run(settled, teacher_import.ImportInputs(), out), complete, shared)


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


@click.command(
    cls=Verb,
    processes=True,
    examples=[
        "compress teacher train --data digits --model wrn-10-4 --out runs/teacher",
        "compress teacher train --data digits --method pgd-at --epochs 30 --set attack.steps=5 --out runs/teacher",
        "compress teacher train --data cifar10 --model resnet18 --method trades --budget 8h --out runs/teacher",
        "compress teacher train --data cifar10 --model mynets:wide --weights start.pt --out runs/teacher",
    ],
)
@click.option("--model", type=MODEL, help=f"Architecture: {ARCHITECTURE}.")
@start_options
@click.option("--method", type=Name("method", teacher_method_names()), help="Objective it is trained with.")
@extra_option
@training_options
@pace_options
@stage_options()
def train(shared: Shared, **flags: Any) -> None:
    """Train a teacher from scratch.

    What is not given comes from --config, else from the defaults; `compress init` lists all keys.
    """
    from compress.cli.stage import place, settle, show
    from compress.config import TeacherConfig
    from compress.stages import teacher

    settled = settle(TeacherConfig, "teacher", shared, flags)
    out, complete = place(shared)
    show(teacher.run(settled, teacher.TeacherInputs(), out), complete, shared)
