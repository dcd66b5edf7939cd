"""Networks small enough for float64 loops, a batch for them, and losses as loops over numbers."""

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from compress.methods import registry
from compress.methods.objective import Objective, TrainingBatch
from compress.networks.base import Classifier, Features


class Tiny(Classifier):
    """Flatten, tanh features, linear head: small enough for float64 loops."""

    def __init__(self, width: int, seed: int) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        self.body = nn.Linear(4, width, dtype=torch.float64)
        self.head = nn.Linear(width, 3, dtype=torch.float64)
        for weight in self.parameters():
            weight.data = torch.randn(weight.shape, generator=g, dtype=torch.float64)

    def forward_features(self, x: Tensor) -> Features:
        pooled = torch.tanh(self.body(x.flatten(1)))
        return Features(self.head(pooled), pooled, (pooled[:, :1, None, None], pooled[:, :, None, None]))


def batch(teacher: Classifier, n: int = 7) -> tuple[TrainingBatch, Tensor]:
    g = torch.Generator().manual_seed(5)
    x = torch.rand(n, 1, 2, 2, generator=g, dtype=torch.float64)
    x_adv = (x + 0.1 * torch.randn(x.shape, generator=g, dtype=torch.float64)).clamp(0, 1)
    y = torch.randint(0, 3, (n,), generator=g)
    return TrainingBatch(x, y, teacher, Tiny(4, seed=6), index=torch.arange(n), key=(0, 0, 0)), x_adv


def objective(
    student: Classifier, teacher: "Classifier | None", method: "str | list[str]" = "vgap", **options: object
) -> Objective:
    clean = [batch(Tiny(3, 0), 40)[0].x]
    return registry.build_objective(method, options, student, teacher, clean, images=40).to(torch.float64)


def values(objective: Objective, student: Classifier, batch: TrainingBatch, x_adv: Tensor) -> dict[str, float]:
    """The parts as numbers."""
    return {name: float(part.detach()) for name, part in objective.parts(student, batch, x_adv).items()}


def alone(batch: TrainingBatch) -> TrainingBatch:
    """The batch without teachers."""
    return replace(batch, teacher=None, clean_teacher=None)


def naive_kl(p_logits: Tensor, q_logits: Tensor) -> float:
    total = 0.0
    for a, b in zip(p_logits.tolist(), q_logits.tolist(), strict=True):
        za, zb = sum(map(math.exp, a)), sum(map(math.exp, b))
        for i, j in zip(a, b, strict=True):
            p, q = math.exp(i) / za, math.exp(j) / zb
            total += p * math.log(p / q)
    return total / len(p_logits)


def naive_covariance(f: Tensor) -> list[list[float]]:
    rows, n = f.tolist(), len(f)
    mean = [sum(r[d] for r in rows) / n for d in range(f.shape[1])]
    width = range(f.shape[1])
    return [[sum((r[a] - mean[a]) * (r[b] - mean[b]) for r in rows) / (n - 1) for b in width] for a in width]


def naive_misfit(a: list[list[float]], b: list[list[float]]) -> float:
    top = sum((x - y) ** 2 for r, s in zip(a, b, strict=True) for x, y in zip(r, s, strict=True))
    return top / sum(y * y for s in b for y in s)


def naive_gram(logits: Tensor, between: str) -> list[list[float]]:
    scores = [[math.exp(v) / sum(map(math.exp, row)) for v in row] for row in logits.tolist()]
    vectors = scores if between == "images" else [list(column) for column in zip(*scores, strict=True)]
    return [[sum(a * b for a, b in zip(u, v, strict=True)) for v in vectors] for u in vectors]
