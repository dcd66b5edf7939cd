"""`compress analyze`."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from compress.cli.main import Verb
from compress.cli.options import FOLDER, Shared, stage_options
from edge.core.readable import table


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
        (
            shared_keys
            for network in stages
            if "data" in (shared_keys := stage.inherited(network.path, (), ["data", "threat"]))
        ),
        {},
    )
    flags["radii"] = [eps.strip() for eps in radii.split(",")] if radii else None
    settled = stage.settle(AnalyzeConfig, "analyze", shared, flags, base)
    out = shared.out or folders[0] / "analysis"
    complete = artifact.status(out, plan(settled, AnalyzeInputs(folders))).state == "complete"
    analysis = run(settled, AnalyzeInputs(folders), out, replace=own)
    written = report.write(folders[0]) if own else None
    if shared.as_json:
        more = {"report": str(written)} if written else {}
        click.echo(
            stage.as_json(analysis, complete, analysis=read(analysis), figure=str(analysis.file("figure.png")), **more)
        )
    else:
        click.echo(
            "\n".join(
                [head(analysis, complete), *analysis_lines(read(analysis), analysis.path / "figure.png", written)]
            )
        )


def analysis_lines(figures: Mapping[str, Any], picture: Path, report: "Path | None") -> list[str]:
    """The whole text below a stage's head line."""
    data = figures["data"]
    head = f"  n {data['n']} test images, PGD-{figures['attack']['steps']}, linf eps {figures['eps']}, "
    radii, resamples = figures["radii"], figures["bootstrap"]
    head += f"{len(radii)} radii up to {radii[-1]}; intervals 95 %, {resamples:,} resamples"
    titles = ["model", "clean", "robust", "variance gap", "r over radii", "Gram gap", "r over radii"]
    rows = [_row(model, figures["eps"]) for model in figures["models"]]
    why = dict.fromkeys(f"  {line}" for model in figures["models"] for line in _doubts(model))
    across = list(_across(figures["across_models"], figures["eps"]))
    written = [f"  figure  {picture}", *([f"  report  {report}"] if report else [])]
    return [head, *(f"  {line}" for line in table(titles, rows)), *why, *across, *written]


def _row(model: Mapping[str, Any], eps: str) -> list[str]:
    at = next(row for row in model["radii"] if row["eps"] == eps)
    cells = [model["name"], f"{100 * model['radii'][0]['robust']:.1f} %", f"{100 * at['robust']:.1f} %"]
    for gap in ("variance", "image_gram"):
        cells += [_share(at[f"relative_{gap}_gap"]), correlation(model["over_radii"][gap]["pearson"])]
    return cells


def _doubts(model: Mapping[str, Any]) -> Iterator[str]:
    """What the table's correlations over radii do not show."""
    for gap, title in (("variance", "variance"), ("image_gram", "Gram")):
        entry = model["over_radii"][gap]["pearson"]
        if entry["r"] is None:
            yield f"{model['name']}: r undefined, {entry['reason']}"
        elif entry["interval"] and entry["interval"][0] <= 0 <= entry["interval"][1]:
            yield f"{model['name']}: the interval of the {title} gap's r contains 0, no relation is shown"


def _share(value: "float | None") -> str:
    return "undefined" if value is None else f"{100 * value:+.1f} %"


def correlation(entry: Mapping[str, Any], interval: str = "interval") -> str:
    """`-0.981 (-0.990 to -0.962)`."""
    if entry["r"] is None:
        return "undefined"
    bounds = entry[interval]
    return f"{entry['r']:+.3f}" + (f" ({bounds[0]:+.3f} to {bounds[1]:+.3f})" if bounds else " (no interval)")


def _across(across: Mapping[str, Any], eps: str) -> Iterator[str]:
    """Predictors by |r|, and a sentence for what the intervals allow to say."""
    yield ""
    if "reason" in across:
        yield f"  across models: {across['reason']}"
        return
    yield f"  across {across['n']} models at eps {eps}" + (f": {across['note']}" if across["note"] else "")
    covariates = " and ".join(across["given"])
    titles = ["predictor of robust accuracy", "r", "over models", "over images", f"r given {covariates}"]
    rows = [
        [row["label"] + (" (rival)" if row["kind"] == "rival" else ""), *_cells(row)] for row in across["predictors"]
    ]
    yield from (f"  {line}" for line in table(titles, rows))
    yield from (f"  {line}" for line in verdict(across))


def _cells(row: Mapping[str, Any]) -> list[str]:
    if row["r"] is None:
        return ["undefined", "", "", row["reason"]]
    partial = row.get("partial")
    if partial is None:
        beyond_covariates = ""
    elif partial["r"] is None:
        beyond_covariates = partial["reason"]
    else:
        beyond_covariates = correlation(partial, "over_models")
    return [f"{row['r']:+.3f}", _bounds(row["over_models"]), _bounds(row["over_images"]), beyond_covariates]


def _bounds(bounds: "list[float] | None") -> str:
    return f"{bounds[0]:+.3f} to {bounds[1]:+.3f}" if bounds else "none"


def verdict(across: Mapping[str, Any]) -> Iterator[str]:
    """What may be said of the law, of the strongest gap measure and the strongest rival, by intervals over models."""
    rows = across["predictors"]  # the strongest first
    law = next(row for row in rows if row["name"] == "relative_variance_gap")
    yield f"the law's own, {_said(law)}"
    for kind, title in (("gap", "gap measures"), ("rival", "rivals")):
        tried = [row for row in rows if row["kind"] == kind]
        yield f"strongest of {len(tried)} {title}, {_said(tried[0])}"


def _said(row: Mapping[str, Any]) -> str:
    if row["r"] is None:
        return f"{row['label']}: undefined, {row['reason']}"
    bounds = row["over_models"]
    if bounds is None:
        return f"{row['label']}: no interval over so few models, nothing is shown"
    if bounds[0] <= 0 <= bounds[1]:
        return f"{row['label']}: its interval contains 0, no relation is shown"
    return f"{row['label']}: r {row['r']:+.3f}, its interval is without 0"
