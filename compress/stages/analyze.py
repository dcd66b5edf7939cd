"""The analyzed stage: robust accuracy against the gap between feature statistics under attack and without.

Dong, Koniusz, Chen, Ong (ECCV 2024) found a strong negative linear relation over growing radii. Here it is measured
on any models, with intervals, and put beside rival predictors across models (docs/analyze.md).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as changed
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from compress import training
from compress.analysis import figure, law, measurement
from compress.analysis.measurement import GAPS, AnalyzedModel, Sample, draw, measure
from compress.config import AnalyzeConfig
from compress.data.dataset import Dataset
from compress.folders import lineage, load, load_data, plan_of
from compress.stages.attack import chosen_test_images
from compress.stages.taken_features import taken_features, why_none
from edge.core import artifact
from edge.core.artifact import Plan, Stage, Work
from edge.core.errors import CompressError
from edge.core.progress import say
from edge.core.proportions import clopper_pearson

FIGURES = "analysis.json"
PICTURE = "figure.png"
STATE = "state"
DEFAULT_IMAGES = 1000
FEWEST_IMAGES = 30
FEWEST_RADII = 3
LEVEL = 0.95


@dataclass(frozen=True)
class AnalyzeInputs:
    """Folders of stages that hold networks, or of runs, each of which stands for all networks in it."""

    models: "Sequence[Path | str]"


def plan(config: AnalyzeConfig, inputs: AnalyzeInputs) -> Plan:
    """What decides the result."""
    return _plan(config, measurement.network_stages(inputs.models))


def run(config: AnalyzeConfig, inputs: AnalyzeInputs, out: "Path | str", *, replace: bool = False) -> Stage:
    """Analyze the models into `out`."""
    stages = measurement.network_stages(inputs.models)
    radii = grid(config)
    subjects = measurement.analyzed_models(stages, every_epoch=config.every_epoch)

    def make(work: Work) -> None:
        dataset = load_data(config.data, *stages)
        taken = _taken_features(stages)
        index = chosen_test_images(dataset, config.images or min(DEFAULT_IMAGES, len(dataset.splits["test"])))
        if len(index) < FEWEST_IMAGES:
            raise CompressError(f"images: {len(index)} are too few for intervals; give at least {FEWEST_IMAGES}")
        sample = Sample(dataset.images[index], dataset.labels[index], index)
        say(f"analyzing {len(subjects)} models at {len(radii)} radii on {len(index)} test images of {dataset.name}")
        measured = _measured(subjects, sample, radii, config, work)
        analysis = _describe(subjects, measured, dataset, len(index), radii, config, taken)
        artifact.write_atomic(
            work.add_payload(FIGURES), json.dumps(analysis, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        )
        figure.draw(analysis, work.add_record(PICTURE))
        work.metrics = {"n": len(index), "models": len(subjects), "eps": config.threat.eps}

    return artifact.build(
        out, _plan(config, stages), make, lineage=lineage(config, _roles(stages)), keep=(STATE,), replace=replace
    )


def read(stage: Stage) -> dict[str, Any]:
    """The figures of an analyzed stage."""
    if stage.kind != "analyzed":
        raise CompressError(f"{stage.path}: is a stage of kind {stage.kind}; needed here: analyzed")
    return dict(json.loads(stage.file(FIGURES).read_text(encoding="utf-8")))


def grid(config: AnalyzeConfig) -> list[str]:
    """The radii, 0 first; by default 0 and 8 more in equal steps up to twice eps."""
    eps = Fraction(config.threat.eps)
    if not config.radii:
        return ["0", *(config.threat.eps if k == 4 else _written(eps * k / 4) for k in range(1, 9) if eps * k <= 4)]
    radii = {Fraction(radius): radius for radius in ("0", *config.radii)}
    listed = ", ".join(config.radii)
    if eps not in radii:
        raise CompressError(f"radii: {listed} are without eps {config.threat.eps}, where models are compared; add it")
    if len(radii) < FEWEST_RADII:
        raise CompressError(f"radii: {listed} make no line; give at least {FEWEST_RADII} different ones, 0 counts")
    return [config.threat.eps if radius == eps else radii[radius] for radius in sorted(radii)]


def _written(radius: Fraction) -> str:
    """In 255ths where that is exact."""
    levels = radius * 255
    return f"{levels.numerator}/255" if levels.denominator == 1 else f"{float(radius):.6g}"


def _plan(config: AnalyzeConfig, stages: Sequence[Stage]) -> Plan:
    """With checkpoints, which are no part of a stage's identity, their hashes too."""
    planned = plan_of("analyzed", config, _roles(stages))
    if not config.every_epoch:
        return planned
    kept = {f"checkpoints-{k}": artifact.digest(measurement.checkpoints(stage)) for k, stage in enumerate(stages)}
    return changed(planned, inputs={**planned.inputs, **kept})


def _roles(stages: Sequence[Stage]) -> dict[str, Stage]:
    return {f"model-{k}": stage for k, stage in enumerate(stages)}


def _taken_features(stages: Sequence[Stage]) -> dict[str, str]:
    """Of networks of others, what their pooled features are, by identity.

    One without features is refused before hours of attacks rather than in the middle of them.
    """
    taken = {}
    for stage in stages:
        model = load(stage)
        if not model.has_features:
            raise CompressError(f"{stage.path}: {why_none(model)}, {measurement.NOTHING_TO_MEASURE}")
        if features := taken_features({str(stage.path): model}).get("features"):
            taken[stage.identity] = " + ".join(each["pooled"] for each in features.values())
    return taken


def _measured(
    subjects: Sequence[AnalyzedModel], sample: Sample, radii: Sequence[str], config: AnalyzeConfig, work: Work
) -> list[dict[str, np.ndarray]]:
    """Each model's statistics; what a killed call had is kept beside the stage in the making."""
    weights = draw(len(sample.labels), config.bootstrap, config.seed)
    work.file(STATE).mkdir(exist_ok=True)
    return [_one(subject, k, sample, weights, radii, config, work) for k, subject in enumerate(subjects)]


def _one(
    subject: AnalyzedModel,
    number: int,
    sample: Sample,
    weights: np.ndarray,
    radii: Sequence[str],
    config: AnalyzeConfig,
    work: Work,
) -> dict[str, np.ndarray]:
    kept = work.file(STATE) / f"{number}.npz"
    if not kept.is_file():
        statistics = measure(
            subject.load().to(training.device()),
            subject.name,
            sample,
            weights,
            [float(Fraction(radius)) for radius in radii],
            steps=config.steps,
            seed=config.seed,
            batch_size=config.batch_size,
        )
        partial = kept.with_suffix(".tmp.npz")
        np.savez(partial, **statistics)  # type: ignore[arg-type]
        partial.replace(kept)
    with np.load(kept) as arrays:
        return dict(arrays)


def _describe(
    subjects: Sequence[AnalyzedModel],
    measured: Sequence[Mapping[str, np.ndarray]],
    dataset: Dataset,
    n: int,
    radii: Sequence[str],
    config: AnalyzeConfig,
    taken: Mapping[str, str],
) -> dict[str, Any]:
    """The document `analysis.json`; undefined values are null, never NaN."""
    at = radii.index(config.threat.eps)
    return {
        "data": {**dataset.as_plan(), "n": n, "classes": list(dataset.classes)},
        "attack": {"name": "pgd", "norm": "linf", "steps": config.steps, "step_size": "2.5 eps / steps"},
        "eps": config.threat.eps,
        "radii": list(radii),
        "bootstrap": config.bootstrap,
        "level": LEVEL,
        "models": [
            {
                "name": subject.name,
                "kind": subject.stage.kind,
                "identity": subject.stage.identity,
                "epoch": subject.epoch,
                "features": int(statistics["width"]),
                **({"pooled": taken[subject.stage.identity]} if subject.stage.identity in taken else {}),
                "radii": _rows(statistics, radii, n),
                "over_radii": law.over_radii(statistics),
            }
            for subject, statistics in zip(subjects, measured, strict=True)
        ],
        "across_models": law.across_models(measured, at, seed=config.seed),
    }


def _rows(statistics: Mapping[str, np.ndarray], radii: Sequence[str], n: int) -> list[dict[str, Any]]:
    """The sample's own figures at every radius."""
    shares = {gap: law.relative(statistics, gap) for gap in GAPS}
    rows = []
    for k, radius in enumerate(radii):
        count = round(float(statistics["robust"][k, 0]) * n)
        row: dict[str, Any] = {"eps": radius, "robust": count / n, "count": count}
        row["interval"] = list(clopper_pearson(count, n, LEVEL))
        for gap in GAPS:
            row[f"{gap}_gap"] = float(statistics[gap][k, 0])
            share = float(shares[gap][k, 0])
            row[f"relative_{gap}_gap"] = share if np.isfinite(share) else None
        rows.append(
            {**row, "margin": float(statistics["margin"][k, 0]), "confidence": float(statistics["confidence"][k, 0])}
        )
    return rows
