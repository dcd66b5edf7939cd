"""`compress analyze`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from compress.cli.lazy import Verb
from compress.cli.options import FOLDER, Shared, stage_options


@click.command(
    cls=Verb,
    examples=[
        "compress analyze runs/quickstart",
        "compress analyze runs/teacher runs/student --images 500 --out runs/analysis",
        "compress analyze runs/student --radii 0,4/255,8/255,16/255 --every-epoch --out runs/epochs",
    ],
)
@click.argument("folders", type=FOLDER, nargs=-1, required=True, metavar="FOLDER...")
@click.option("--images", type=int, help="Test images, class-balanced; default 1,000, or all if fewer.")
@click.option("--steps", type=int, help="PGD steps at each radius; default 20.")
@click.option("--radii", metavar="EPS,EPS", help="Radii, eps among them; default 0 and 8 more up to twice eps.")
@click.option("--every-epoch", is_flag=True, default=None, help="Also every checkpoint that the stages have kept.")
@click.option("--bootstrap", type=int, help="Resamples behind each interval; default 1000.")
@click.option("--batch-size", type=int, help="Images attacked at once.")
@stage_options(out_default="RUN/analysis for one run folder")
def analyze(shared: Shared, folders: "tuple[Path, ...]", radii: "str | None", **flags: Any) -> None:
    """Robust accuracy against the gap between feature variance under attack and without: over radii, across models.

    A FOLDER is a teacher, student or quantized stage, or the folder of a run, which stands for all of these in it.
    Dataset and radius are those of the first model that has them. The analysis of one run is put into its report.
    """
    from compress import report
    from compress.analysis import measurement
    from compress.cli import stage
    from compress.cli.show import head
    from compress.cli.show_analysis import lines
    from compress.config import AnalyzeConfig
    from compress.stages.analyze import AnalyzeInputs, plan, read, run
    from edge.core import artifact
    from edge.core.artifact import MANIFEST
    from edge.core.errors import CompressError

    own = shared.out is None
    if own and (len(folders) > 1 or (folders[0] / MANIFEST).is_file()):
        raise CompressError(
            "--out is missing; without it only the folder of one run can be analyzed, into RUN/analysis"
        )
    stages = measurement.network_stages(folders)
    base: Mapping[str, Any] = next(
        (given for found in stages if "data" in (given := stage.inherited(found.path, (), ["data", "threat"]))), {}
    )
    flags["radii"] = [eps.strip() for eps in radii.split(",")] if radii else None
    settled = stage.settle(AnalyzeConfig, "analyze", shared, flags, base)
    out = shared.out or folders[0] / "analysis"
    complete = artifact.status(out, plan(settled, AnalyzeInputs(folders))).state == "complete"
    made = run(settled, AnalyzeInputs(folders), out, replace=own)
    written = report.write(folders[0]) if own else None
    if shared.as_json:
        more = {"report": str(written)} if written else {}
        click.echo(stage.as_json(made, complete, analysis=read(made), figure=str(made.file("figure.png")), **more))
    else:
        click.echo("\n".join([head(made, complete), *lines(read(made), made.path / "figure.png", written)]))
