"""One model over growing radii: attacked, then every statistic of the sample and of its resamples."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from compress.analysis import statistics
from compress.analysis.models import NO_FEATURES
from compress.attacks import losses as attack_losses
from compress.attacks.accuracy import largest_margin
from compress.attacks.pgd import batch_random_start
from compress.data.split import to_float
from compress.networks.base import Classifier
from compress.numerics.seeds import generator
from edge.core.errors import CompressError
from edge.core.progress import Progress

#: What is compared between adversarial and clean images.
GAPS = ("variance", "covariance", "class_gram", "image_gram")

#: Frobenius distances below this share of the norm are what cancellation in float64 leaves of 0.
CANCELLED = 1e-7


@dataclass(frozen=True)
class Sample:
    """The images that every model is shown: uint8 (n,C,H,W), labels (n,), where they stand in the dataset (n,)."""

    images: np.ndarray
    labels: np.ndarray
    index: np.ndarray


@dataclass(frozen=True)
class Seen:
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


def _row(seen: Seen, standing: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    values = {"robust": standing.astype(np.float64), "margin": seen.margin, "confidence": seen.scores.max(1)}
    return {key: weights @ value / len(value) for key, value in values.items()}


def _norms(clean: Seen, weights: np.ndarray) -> dict[str, np.ndarray]:
    nothing = np.zeros_like(clean.scores)
    return {
        "variance": statistics.traces(clean.features, weights),
        "covariance": statistics.covariance_norm(clean.features, weights),
        "class_gram": statistics.class_gram_distance(clean.scores, nothing, weights),
        "image_gram": statistics.image_gram_distance(clean.scores, nothing, weights),
    }


def _gaps(attacked: Seen, clean: Seen, of: "dict[str, np.ndarray]", weights: np.ndarray) -> dict[str, np.ndarray]:
    found = {
        "variance": statistics.traces(attacked.features, weights) - of["variance"],
        "covariance": statistics.covariance_distance(attacked.features, clean.features, weights),
        "class_gram": statistics.class_gram_distance(attacked.scores, clean.scores, weights),
        "image_gram": statistics.image_gram_distance(attacked.scores, clean.scores, weights),
    }
    return {gap: np.where(np.abs(value) <= CANCELLED * of[gap], 0, value) for gap, value in found.items()}


def observe(
    model: Classifier, name: str, sample: Sample, eps: float, *, steps: int, seed: int, batch_size: int, bar: Progress
) -> Seen:
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
    return Seen(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _see(model: Classifier, name: str, x: Tensor, y: Tensor) -> "tuple[np.ndarray, ...]":
    with torch.no_grad():
        out = model.forward_features(x)
        margin = -attack_losses.margin(y)(out.logits)
    if out.pooled.shape[1] == 0:
        raise CompressError(f"{name}: {NO_FEATURES}")
    if not (out.pooled.isfinite().all() and out.logits.isfinite().all()):
        raise CompressError(f"{name}: gives values that are no finite numbers; leave this model out")
    found = (out.pooled, out.logits.double().softmax(1), margin, margin > 0)
    return tuple(part.cpu().numpy() if part.dtype == torch.bool else part.double().cpu().numpy() for part in found)
