"""Features of student and teacher: which are compared, how their widths are brought together, and their statistics.

A module of torch, which methods import when they prepare themselves.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from compress.networks.base import Classifier, Features
from compress.networks.undisturbed import evaluating
from edge.core.errors import CompressError
from edge.core.progress import say


def covariance(f: Tensor) -> Tensor:
    """Sample covariance of features (B,D), denominator B − 1 → (D,D)."""
    centred = f - f.mean(0)
    return centred.T @ centred / (len(f) - 1)


def covariance_within(f: Tensor, y: Tensor) -> Tensor:
    """The part of `covariance` within classes: of features less the mean of their class in the batch; (D,D)."""
    same = (y[:, None] == y[None]).to(f.dtype)
    centred = f - (same / same.sum(1, keepdim=True)) @ f
    return centred.T @ centred / (len(f) - 1)


def scatters(f: Tensor, y: Tensor, kind: str) -> list[Tensor]:
    """`total`: [covariance]; `within`, `between`: [that part of it]; `both`: the two parts, whose sum is the total."""
    if kind == "total":
        return [covariance(f)]
    inside = covariance_within(f, y)
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


def pooled(features: Features, which: str) -> list[Tensor]:
    """`penultimate`: [pooled features (B,D)]; `stages`: the mean over space of each stage's maps, [(B,C), …]."""
    if which == "penultimate":
        return [features.pooled]
    return [
        stage.float().mean((2, 3)) if stage.dtype != torch.float64 else stage.mean((2, 3)) for stage in features.stages
    ]


#: Of so many images on, a teacher's principal directions are known well enough.
ENOUGH = 5000


def evaluated(network: Classifier, x: Tensor) -> Features:
    """What a network says of images (B,C,H,W) before training: in evaluation mode, so that no statistic moves."""
    with evaluating(network), torch.no_grad():
        return network.forward_features(x)


class Projections(nn.Module):
    """P of the student's features and Q of the teacher's, level by level; of several stages the last ones are paired.

    `principal`: Q is the teacher's directions of largest variance, as many as the student is wide, P nothing.
    `learned`: P is a linear map to the teacher's width, trained with the student. `identity`: neither.
    """

    def __init__(
        self, kind: str, which: str, student: Classifier, teacher: Classifier, clean: Iterable[Tensor]
    ) -> None:
        """`clean`, again and again, yields batches of training images (B,C,H,W) by which directions are found."""
        super().__init__()
        self.which = which
        of_student = pooled(evaluated(student, next(iter(clean))[:2]), which)
        batches: list[list[Tensor]] = []
        for x in clean:
            batches.append(pooled(evaluated(teacher, x), which))
            if not batches[0] or sum(len(features[0]) for features in batches) >= ENOUGH:
                break
        of_teacher = [torch.cat(level) for level in zip(*batches, strict=True)]
        self.levels = _paired(len(of_student), len(of_teacher))
        self.maps = nn.ModuleList()
        for level, (s, t) in enumerate(zip(of_student[-self.levels :], of_teacher[-self.levels :], strict=True)):
            width, teacher_width = s.shape[1], t.shape[1]
            if kind == "identity" and width != teacher_width:
                raise CompressError(
                    f"options.projection: identity needs equal widths, the student has {width} features and the "
                    f"teacher {teacher_width}; use principal or learned"
                )
            if kind == "principal" and width > teacher_width:
                raise CompressError(
                    f"options.projection: principal needs a teacher at least as wide, the student has {width} features "
                    f"and the teacher {teacher_width}; use learned"
                )
            learned = nn.Linear(width, teacher_width, bias=False).to(t.device)
            nn.init.orthogonal_(learned.weight)
            self.maps.append(learned if kind == "learned" else nn.Identity())
            directions = principal_directions(t, width) if kind == "principal" else t.new_empty(0)
            self.register_buffer(f"directions{level}", directions)

    def student(self, features: Features) -> list[Tensor]:
        """P f_S of each level, (B,D)."""
        return [apply(f) for apply, f in zip(self.maps, self.raw(features), strict=True)]

    def teacher(self, features: Features) -> list[Tensor]:
        """Q f_T of each level, (B,D)."""
        rows = [self.get_buffer(f"directions{level}") for level in range(self.levels)]
        return [f @ q.T if q.numel() else f for q, f in zip(rows, self.raw(features), strict=True)]

    def raw(self, features: Features) -> list[Tensor]:
        """The features of each level as they are, (B,D)."""
        return pooled(features, self.which)[-self.levels :]


def _paired(of_student: int, of_teacher: int) -> int:
    """How many levels are compared; said where one network has more than the other, refused where one has none."""
    levels = min(of_student, of_teacher)
    if not levels:
        raise CompressError(
            f"options.features: stages: the {'teacher' if of_student else 'student'} gives no feature maps; use "
            f"penultimate, or name modules that do (features.stages)"
        )
    if of_student != of_teacher:
        say(f"the student gives {of_student} stages, the teacher {of_teacher}: the last {levels} of each are compared")
    return levels
