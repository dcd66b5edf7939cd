"""`compress teacher import`."""

from typing import Any

import click

from compress.cli.lazy import Verb
from compress.cli.options import Shared, stage_options


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
@click.option("--image-size", type=int, help="Height and width of its images, without --data; default 32.")
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
