"""Which models an analysis is about, and what is measured of each over growing radii, with its resamples."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from compress.analysis import statistics
from compress.attacks import losses as attack_losses
from compress.attacks.pgd import batch_random_start, largest_margin
from compress.data.split import to_float
from compress.folders import TORCH_STAGES, load
from compress.networks.base import Classifier
from compress.networks.network_files import WEIGHTS, read_tensors
from compress.numerics.seeds import generator
from edge.core import artifact
from edge.core.artifact import MANIFEST, Stage
from edge.core.errors import CompressError
from edge.core.progress import Progress

#: What is compared between adversarial and clean images.
GAPS = ("variance", "covariance", "class_gram", "image_gram")

#: Frobenius distances below this share of the norm are what cancellation in float64 leaves of 0.
CANCELLED = 1e-7

EPOCHS = "epoch-*.safetensors"

NOTHING_TO_MEASURE = "so there are no features to measure; leave this model out"


# -------------------------------------------------------------------------------------------- models


@dataclass(frozen=True)
class AnalyzedModel:
    """One model: a stage's own weights, or the checkpoint in `file`."""

    name: str
    stage: Stage
    file: "str | None" = None

    @property
    def epoch(self) -> "int | None":
        return _epoch(self.file) if self.file else None

    def load(self) -> Classifier:
        model = load(self.stage)
        if self.file:
            model.load_state_dict(read_tensors(self.stage.file(self.file)), strict=True)
        return model


def network_stages(folders: "Sequence[Path | str]") -> list[Stage]:
    """The models' stages: of a run folder its teacher, students and twin. One that is there twice counts once."""
    by_identity: dict[str, Stage] = {}
    for folder in folders:
        for path in _in_run(Path(folder)) or [Path(folder)]:
            stage = artifact.read(path, TORCH_STAGES)
            by_identity.setdefault(stage.identity, stage)
    return list(by_identity.values())


def _in_run(folder: Path) -> list[Path]:
    """The complete stages that hold networks in the folder of a run, in the order in which they are made."""
    if (folder / MANIFEST).is_file():
        return []
    baselines = sorted(path for path in folder.glob("baselines/*") if path.suffix not in (".partial", ".old"))
    places = [folder / "teacher", *baselines, folder / "student", folder / "quantized"]
    return [path for path in places if (path / MANIFEST).is_file()]


def analyzed_models(found: Sequence[Stage], *, every_epoch: bool) -> list[AnalyzedModel]:
    """A model for each stage, with `every_epoch` also for each of its checkpoints whose weights differ."""
    if not every_epoch:
        return [AnalyzedModel(name, stage) for name, stage in zip(short_names(found), found, strict=True)]
    return [
        subject
        for name, stage in zip(short_names(found), found, strict=True)
        for subject in (*_checkpoints(name, stage), AnalyzedModel(name, stage))
    ]


def checkpoints(stage: Stage) -> dict[str, str]:
    """The files of a stage's checkpoints with their sha256, in order of epochs."""
    records = stage.manifest["records"]
    return {name: records[name]["sha256"] for name in sorted(records) if Path(name).match(EPOCHS)}


def _checkpoints(name: str, stage: Stage) -> list[AnalyzedModel]:
    kept = checkpoints(stage)
    if not kept:
        raise CompressError(
            f"{stage.path}: keeps no checkpoints; train it with keep_epochs, or leave it or --every-epoch out"
        )
    shipped = stage.manifest["payload"][WEIGHTS]["sha256"]  # the epoch that was selected counts once
    return [AnalyzedModel(f"{name}@{_epoch(file)}", stage, file) for file, sha in kept.items() if sha != shipped]


def _epoch(file: str) -> int:
    """7 of `epoch-0007.safetensors`."""
    return int(Path(file).stem.partition("-")[2])


def short_names(found: Sequence[Stage]) -> list[str]:
    """The shortest end of each stage's path that tells it from the others: `student`, `first/student`."""
    parts = [stage.path.resolve().parts for stage in found]
    return ["/".join(_shortest(part, [other for other in parts if other != part])) for part in parts]


def _shortest(part: "tuple[str, ...]", others: "list[tuple[str, ...]]") -> "tuple[str, ...]":
    lengths = range(1, len(part) + 1)
    return next((part[-k:] for k in lengths if all(other[-k:] != part[-k:] for other in others)), part)


# --------------------------------------------------------------------------------------- measurement


@dataclass(frozen=True)
class Sample:
    """The images that every model is shown: uint8 (n,C,H,W), labels (n,), where they stand in the dataset (n,)."""

    images: np.ndarray
    labels: np.ndarray
    index: np.ndarray


@dataclass(frozen=True)
class Observation:
    """What a model makes of n images: features (n,D) and softmax scores (n,K) in float64, margins (n,), right (n,)."""

    features: np.ndarray
    scores: np.ndarray
    margin: np.ndarray
    right: np.ndarray


def draw(n: int, count: int, seed: int) -> np.ndarray:
    """Weights (1 + count, n): ones, then how often each image is drawn in each of `count` resamples of n."""
    draws = np.random.default_rng([seed, n]).multinomial(n, np.full(n, 1 / n), size=count)
    return np.concatenate([np.ones((1, n)), draws])


def measure(
    model: Classifier,
    name: str,
    sample: Sample,
    weights: np.ndarray,
    radii: Sequence[float],
    *,
    steps: int,
    seed: int,
    batch_size: int,
) -> dict[str, np.ndarray]:
    """The statistics of `model` at each of R radii, the first of them 0, for each of M rows of weights.

    `robust`, `margin`, `confidence` and the gaps of `GAPS`: (R,M); `of_GAP`, what that gap is relative to: (M,);
    `width`: of the features. The margin is the true logit less the largest other one.
    """
    n = len(sample.labels)
    with Progress(name, n * len(radii)) as bar:
        seen = (
            observe(model, name, sample, eps, steps=steps, seed=seed, batch_size=batch_size, bar=bar) for eps in radii
        )
        clean = next(seen)
        of = _norms(clean, weights)
        rows = [_row(clean, clean.right, weights) | {gap: np.zeros(len(weights)) for gap in GAPS}]
        rows.extend(
            _row(attacked, clean.right & attacked.right, weights) | _gaps(attacked, clean, of, weights)
            for attacked in seen
        )
    stacked = {key: np.stack([row[key] for row in rows]) for key in rows[0]}
    return {**stacked, **{f"of_{gap}": of[gap] for gap in GAPS}, "width": np.array(clean.features.shape[1])}


def _row(seen: Observation, standing: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    values = {"robust": standing.astype(np.float64), "margin": seen.margin, "confidence": seen.scores.max(1)}
    return {key: weights @ value / len(value) for key, value in values.items()}


def _norms(clean: Observation, weights: np.ndarray) -> dict[str, np.ndarray]:
    nothing = np.zeros_like(clean.scores)
    return {
        "variance": statistics.traces(clean.features, weights),
        "covariance": statistics.covariance_norm(clean.features, weights),
        "class_gram": statistics.class_gram_distance(clean.scores, nothing, weights),
        "image_gram": statistics.image_gram_distance(clean.scores, nothing, weights),
    }


def _gaps(
    attacked: Observation, clean: Observation, of: "dict[str, np.ndarray]", weights: np.ndarray
) -> dict[str, np.ndarray]:
    found = {
        "variance": statistics.traces(attacked.features, weights) - of["variance"],
        "covariance": statistics.covariance_distance(attacked.features, clean.features, weights),
        "class_gram": statistics.class_gram_distance(attacked.scores, clean.scores, weights),
        "image_gram": statistics.image_gram_distance(attacked.scores, clean.scores, weights),
    }
    return {gap: np.where(np.abs(value) <= CANCELLED * of[gap], 0, value) for gap, value in found.items()}


def observe(
    model: Classifier, name: str, sample: Sample, eps: float, *, steps: int, seed: int, batch_size: int, bar: Progress
) -> Observation:
    """`model` on the sample, each image moved by PGD within `eps` to the iterate of least margin; at 0 as it is."""
    where = next(model.parameters()).device
    parts = []
    for begin in range(0, len(sample.labels), batch_size):
        rows = slice(begin, begin + batch_size)
        x = to_float(torch.from_numpy(sample.images[rows])).to(where)
        y = torch.from_numpy(sample.labels[rows]).to(where)
        if eps > 0:
            start = torch.cat(
                [
                    batch_random_start(one[None], eps, generator(seed, "analyze", int(i)))
                    for one, i in zip(x, sample.index[rows], strict=True)
                ]
            )
            x, _ = largest_margin(model, x, y, start=start, eps=eps, steps=steps)
        parts.append(_see(model, name, x, y))
        bar.step(len(y))
    return Observation(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _see(model: Classifier, name: str, x: Tensor, y: Tensor) -> "tuple[np.ndarray, ...]":
    with torch.no_grad():
        out = model.forward_features(x)
        margin = -attack_losses.margin(y)(out.logits)
    if out.pooled.shape[1] == 0:
        raise CompressError(f"{name}: gives nothing but logits, {NOTHING_TO_MEASURE}")
    if not (out.pooled.isfinite().all() and out.logits.isfinite().all()):
        raise CompressError(f"{name}: gives values that are no finite numbers; leave this model out")
    found = (out.pooled, out.logits.double().softmax(1), margin, margin > 0)
    return tuple(part.cpu().numpy() if part.dtype == torch.bool else part.double().cpu().numpy() for part in found)
