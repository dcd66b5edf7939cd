"""What pulls at the student: each part's share of the gradient, and how many dimensions the features use."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from compress.methods.objective import TrainingBatch
from compress.networks.base import Classifier, Features
from compress.numerics import ranks


class FeatureTap(Classifier):
    """`network`, whose pooled features of the images `x` are kept as it gives them, so that no pass is added."""

    def __init__(self, network: Classifier, x: Tensor) -> None:
        super().__init__()
        self.network, self.x = network, x
        self.has_features = network.has_features
        self.pooled: Tensor | None = None

    def forward_features(self, x: Tensor) -> Features:
        features = self.network.forward_features(x)
        if x is self.x:
            self.pooled = features.pooled.detach()
        return features


class Diagnosis:
    """Means over an epoch's diagnosed steps, each `every` steps of the run; never if that is 0."""

    def __init__(self, every: int) -> None:
        self.every, self.count = every, 0
        self.sums: dict[str, float] = {}

    def due(self, step: int) -> bool:
        """Whether step `step` of the run, from 0, is one."""
        return self.every > 0 and step % self.every == 0

    def add(self, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.count += 1

    def taken(self) -> dict[str, float]:
        """The means, and the next epoch begins."""
        means = {name: value / self.count for name, value in self.sums.items()}
        self.sums, self.count = {}, 0
        return means

    def state_dict(self) -> dict[str, Any]:
        return {"sums": self.sums, "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sums, self.count = state["sums"], state["count"]


def figures(
    parts: Mapping[str, Tensor], weights: Sequence[Tensor], seen: FeatureTap, batch: TrainingBatch
) -> dict[str, float]:
    """`gradient_share_PART`, and `covariance_…_student` and `…_teacher` on x_adv. Graphs and statistics stay."""
    values = {f"gradient_share_{name}": share for name, share in shares(parts, weights).items()}
    pooled = {"student": seen.pooled}
    if batch.teacher is not None and batch.teacher.has_features:
        pooled["teacher"] = batch.teach(seen.x).pooled
    for who, features in pooled.items():
        if features is not None and features.shape[1]:
            values |= {f"covariance_{name}_{who}": value for name, value in spectrum(features).items()}
    return values


def shares(parts: Mapping[str, Tensor], weights: Sequence[Tensor]) -> dict[str, float]:
    """‖∂part/∂weights‖ over the sum of these norms, by part; 0 for a part that no weight moves."""
    norms = {name: _norm(part, weights) for name, part in parts.items()}
    whole = sum(norms.values())
    return {name: norm / whole if whole else 0.0 for name, norm in norms.items()}


def _norm(part: Tensor, weights: Sequence[Tensor]) -> float:
    if not part.requires_grad:
        return 0.0
    by_weight = torch.autograd.grad(part, weights, retain_graph=True, allow_unused=True)
    gradients = [gradient for gradient in by_weight if gradient is not None]
    ranks.total(gradients)
    return math.sqrt(sum(float(gradient.double().square().sum()) for gradient in gradients))


def spectrum(features: Tensor) -> dict[str, float]:
    """Of the batch covariance of features (B,D) with eigenvalues λ: rank, effective rank, condition number.

    The rank counts λ > λ₁ · max(B, D) · ε of float32, in which the features come; the condition number is λ₁ over the
    smallest of these. The effective rank is exp(−Σ p ln p), p = λ / Σ λ (Roy & Vetterli 2007). All 0 without variance.
    """
    centred = (features - features.mean(0)).double()
    values = torch.linalg.svdvals(centred.cpu()).square() / (len(features) - 1)
    kept = values[values > values[0] * max(features.shape) * torch.finfo(torch.float32).eps]
    if not len(kept):
        return {"rank": 0.0, "effective_rank": 0.0, "condition": 0.0}
    p = values / values.sum()
    entropy = -torch.special.xlogy(p, p).sum()
    return {
        "rank": float(len(kept)),
        "effective_rank": float(entropy.exp()),
        "condition": float(kept[0] / kept[-1]),
    }
