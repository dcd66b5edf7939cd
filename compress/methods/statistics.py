"""Second-order statistics of features and scores, and how far apart two of them are."""

import torch
from torch import Tensor


def covariance(f: Tensor) -> Tensor:
    """Sample covariance of features (B,D), denominator B − 1 → (D,D)."""
    centred = f - f.mean(0)
    return centred.T @ centred / (len(f) - 1)


def within(f: Tensor, y: Tensor) -> Tensor:
    """The part of `covariance` within classes: of features less the mean of their class in the batch; (D,D)."""
    same = (y[:, None] == y[None]).to(f.dtype)
    centred = f - (same / same.sum(1, keepdim=True)) @ f
    return centred.T @ centred / (len(f) - 1)


def scatters(f: Tensor, y: Tensor, kind: str) -> list[Tensor]:
    """`total`: [covariance]; `within`, `between`: [that part of it]; `both`: the two parts, whose sum is the total."""
    if kind == "total":
        return [covariance(f)]
    inside = within(f, y)
    if kind == "within":
        return [inside]
    between = covariance(f) - inside
    return [between] if kind == "between" else [inside, between]


def gram(rows: Tensor, between: str) -> Tensor:
    """Gram matrix of (B,K): `images` → (B,B), `classes` (columns) → (K,K)."""
    return rows @ rows.T if between == "images" else rows.T @ rows


def misfit(student: Tensor, teacher: Tensor) -> Tensor:
    """‖student − teacher‖² / ‖teacher‖², Frobenius; () ≥ 0, and 1 for a student of zeros."""
    return (student - teacher).square().sum() / teacher.square().sum().clamp(min=1e-12)


def gap(clean: Tensor, adversarial: Tensor, kind: str) -> Tensor:
    """The variance gap of features (B,D), signed, with v the variance of each dimension.

    `absolute`: Σ v(adversarial) − Σ v(clean), (); `relative`: that over Σ v(clean), (); `vector`: each dimension's
    difference over Σ v(clean), (D,).
    """
    before, after = clean.var(0), adversarial.var(0)
    whole = before.sum().clamp(min=1e-12)
    if kind == "vector":
        return (after - before) / whole
    return after.sum() - before.sum() if kind == "absolute" else (after.sum() - before.sum()) / whole


def principal_directions(features: Tensor, count: int) -> Tensor:
    """The `count` directions of largest variance of features (N,D), as orthonormal rows (count,D), signs fixed."""
    _, vectors = torch.linalg.eigh(covariance(features.double()))
    rows = vectors.flip(1)[:, :count].T
    largest = rows.gather(1, rows.abs().argmax(1, keepdim=True))
    return (rows * largest.sign()).to(features.dtype)
