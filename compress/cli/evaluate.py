"""`compress evaluate`."""

from pathlib import Path
from typing import Any

import click

from compress.cli.main import Verb
from compress.cli.options import FOLDER, Shared, stage_options


@click.command(
    cls=Verb,
    processes=True,
    examples=[
        "compress evaluate runs/student --images 1000 --out runs/evaluated",
        "compress evaluate runs/student --attack quick --curve 2/255,4/255,8/255 --corruptions --out runs/quick",
        "compress evaluate runs/student --attack standard --attack my_attack:run --budget 2h --out runs/adaptive",
        "compress evaluate runs/student --other runs/teacher --other runs/quantized --attack quick --out runs/transfer",
        "torchrun --nproc-per-node 4 -m compress evaluate runs/student --out runs/evaluated",
    ],
)
@click.argument("model", type=FOLDER)
@click.option(
    "--attack",
    multiple=True,
    metavar="NAME",
    help="standard (default), rand, quick, one attack or module:function; repeatable.",
)
@click.option("--norm", type=click.Choice(["linf", "l2"]), help="Norm of the perturbation; default linf.")
@click.option("--images", type=int, help="Test images, class-balanced; default all.")
@click.option("--batch-size", type=int, help="Images attacked at once.")
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    help="Of the search, not of verdicts; default auto: bfloat16 where the hardware has it.",
)
@click.option("--budget", metavar="TIME", help="90s, 20m, 2h: images undecided then are inconclusive, never passed.")
@click.option("--curve", metavar="EPS,EPS", help="Robust accuracy at these radii as well, by the quick ensemble.")
@click.option("--unseen", metavar="EPS", help="Robust accuracy in the other norm as well, by the quick ensemble.")
@click.option(
    "--corruptions", is_flag=True, default=None, help="Accuracy under noise, blur, JPEG, brightness, contrast, fog."
)
@click.option(
    "--other", "others", type=FOLDER, multiple=True, metavar="DIR", help="Model of the transfer matrix; repeatable."
)
@click.option("--allow-invalid", is_flag=True, default=None, help="Exit 0 although a validity check fired.")
@stage_options()
def evaluate(
    shared: Shared,
    model: Path,
    attack: "tuple[str, ...]",
    curve: "str | None",
    others: "tuple[Path, ...]",
    **flags: Any,
) -> None:
    """Attack a torch model by an ensemble: worst case with its interval, per attack, per class, and beyond.

    Dataset and radius are the model's where neither a flag nor --config gives them. A killed run resumes. Exit 3 when
    a validity check says that the figure is not to be trusted.
    """
    from compress.cli import stage
    from compress.cli.show import evaluation, head
    from compress.config import EvaluateConfig
    from compress.folders import TORCH_STAGES
    from compress.numerics import ranks
    from compress.stages import evaluate as evaluating

    flags["attack"] = list(attack) or None
    flags["curve"] = [eps.strip() for eps in curve.split(",")] if curve else None
    base = stage.inherited(model, TORCH_STAGES, ["data", "threat"])
    settled = stage.settle(EvaluateConfig, "evaluate", shared, flags, base)
    out, complete = stage.place(shared)
    made = evaluating.run(settled, evaluating.EvaluateInputs(model, others), out)
    if ranks.rank() > 0:  # the folder is rank 0's, and so is the word
        return
    figures = evaluating.read_evaluation(made)
    if shared.as_json:
        click.echo(stage.as_json(made, complete, evaluation=figures))
    else:
        click.echo("\n".join([head(made, complete), *evaluation(figures)]))
