"""VGap-style distillation: the student's feature covariance and Gram matrices drawn to the teacher's.

Dong, Koniusz, Chen, Ong: Adversarially Robust Distillation by Reducing the Student-Teacher Variance Gap (ECCV 2024).
The paper's abstract fixes the idea: align covariance and Gram matrices on clean and adversarial samples. What it
leaves open is an option in `options.Vgap`; no parity with the paper's tables is claimed. With pooled features f (B,D)
and the teacher detached:

    C(f)   = (f − mean f)ᵀ (f − mean f) / (B − 1)
    L_cov  = ½ Σ_{v ∈ {x, x_adv}} ‖C(P f_S(v)) − C(Q f_T(v))‖² / ‖C(Q f_T(v))‖²        Frobenius norms
    L_gram = ½ Σ_{v ∈ {x, x_adv}} ‖G_S(v) − G_T(v)‖² / ‖G_T(v)‖²                       G of softmax scores
    gap(f) = (tr C(f(x_adv)) − tr C(f(x))) / tr C(f(x))                               relative, so widths may differ
    L      = host + λ_cov L_cov + λ_gram L_gram + λ_gap relu(|gap_S| − |gap_T|)
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from compress.attacks.losses import ImageLoss
from compress.attacks.losses import cross_entropy as ascend_cross_entropy
from compress.attacks.losses import divergence as ascend_divergence
from compress.errors import CompressError
from compress.losses.kl import kl
from compress.losses.objective import Batch, Objective
from compress.models import Classifier, Features
from compress.options import Rslad, Vgap


def covariance(f: Tensor) -> Tensor:
    """Sample covariance of features (B,D), denominator B − 1 → (D,D)."""
    centred = f - f.mean(0)
    return centred.T @ centred / (len(f) - 1)


def gram(logits: Tensor, between: str) -> Tensor:
    """Gram matrix of softmax scores (B,K): `images` → (B,B), `classes` → (K,K)."""
    scores = logits.softmax(1)
    return scores @ scores.T if between == "images" else scores.T @ scores


def misfit(student: Tensor, teacher: Tensor) -> Tensor:
    """‖student − teacher‖² / ‖teacher‖², Frobenius; () ≥ 0, and 1 for a student of zeros."""
    return (student - teacher).square().sum() / teacher.square().sum().clamp(min=1e-12)


def relative_gap(clean: Tensor, adversarial: Tensor) -> Tensor:
    """(tr C(adversarial) − tr C(clean)) / tr C(clean) of features (B,D); signed, ()."""
    before, after = clean.var(0).sum(), adversarial.var(0).sum()
    return (after - before) / before.clamp(min=1e-12)


def principal_directions(features: Tensor, count: int) -> Tensor:
    """The `count` directions of largest variance of features (N,D), as orthonormal rows (count,D), signs fixed."""
    _, vectors = torch.linalg.eigh(covariance(features.double()))
    rows = vectors.flip(1)[:, :count].T
    largest = rows.gather(1, rows.abs().argmax(1, keepdim=True))
    return (rows * largest.sign()).to(features.dtype)


class VarianceGap(Objective):
    """The objective of this module's docstring, on the host that `options.host` names."""

    def __init__(self, options: Vgap, student: Classifier, teacher: Classifier, clean: Iterable[Tensor]) -> None:
        """`clean` yields batches of training images, by which the teacher's principal directions are found."""
        super().__init__()
        self.options = options
        self.teacher = [teacher]  # in a list: no parameters of this module
        images = list(clean)
        with torch.no_grad():
            seen = torch.cat([teacher.forward_features(x).pooled for x in images])
            width = student.forward_features(images[0][:2]).pooled.shape[1]
        self.student_map, directions = _projections(options.projection, width, seen)
        self.register_buffer("directions", directions)

    def attack_loss(self, student: Classifier, batch: Batch) -> ImageLoss:
        if self.options.host == "pgd-at":
            return ascend_cross_entropy(batch.y)
        return ascend_divergence(batch.guide.logits)

    def parts(self, student: Classifier, batch: Batch, x_adv: Tensor) -> dict[str, Tensor]:
        """The host's parts and {"cov", "gram"[, "gap"]}, each with its weight already on it."""
        options = self.options
        teacher = (batch.guide, self._teach(x_adv))
        pupil = (student.forward_features(batch.x), student.forward_features(x_adv))
        parts = self._host(pupil, batch)
        pairs = tuple(zip(pupil, teacher, strict=True))
        if options.lambda_cov:
            fits = [misfit(covariance(self._map(s.pooled)), covariance(self._reduce(t.pooled))) for s, t in pairs]
            parts["cov"] = options.lambda_cov * torch.stack(fits).mean()
        if options.lambda_gram:
            fits = [misfit(gram(s.logits, options.gram), gram(t.logits, options.gram)) for s, t in pairs]
            parts["gram"] = options.lambda_gram * torch.stack(fits).mean()
        if options.lambda_gap:
            mine, theirs = (relative_gap(v[0].pooled, v[1].pooled).abs() for v in (pupil, teacher))
            parts["gap"] = options.lambda_gap * torch.relu(mine - theirs)
        return parts

    def _host(self, pupil: tuple[Features, Features], batch: Batch) -> dict[str, Tensor]:
        clean, adversarial = pupil
        if self.options.host == "pgd-at":
            return {"adversarial": nn.functional.cross_entropy(adversarial.logits, batch.y)}
        weight, target = Rslad().adversarial_weight, batch.guide.logits
        return {
            "kl_adversarial": weight * kl(target, adversarial.logits),
            "kl_clean": (1 - weight) * kl(target, clean.logits),
        }

    def _teach(self, x: Tensor) -> Features:
        with torch.no_grad():
            return self.teacher[0].forward_features(x)

    def _map(self, f: Tensor) -> Tensor:
        mapped: Tensor = self.student_map(f)
        return mapped

    def _reduce(self, f: Tensor) -> Tensor:
        return f if self.directions.numel() == 0 else f @ self.directions.T  # type: ignore[operator]


def _projections(kind: str, width: int, teacher_features: Tensor) -> tuple[nn.Module, Tensor]:
    """P of the student's features, and Q of the teacher's as rows (none: as they are)."""
    teacher_width = teacher_features.shape[1]
    if kind == "identity" and width != teacher_width:
        raise CompressError(
            f"options.projection: identity needs equal widths, the student has {width} features and the teacher "
            f"{teacher_width}; use principal or learned"
        )
    if kind == "principal" and width > teacher_width:
        raise CompressError(
            f"options.projection: principal needs a teacher at least as wide, the student has {width} features and "
            f"the teacher {teacher_width}; use learned"
        )
    nothing = teacher_features.new_empty(0)
    if kind == "learned":
        learned = nn.Linear(width, teacher_width, bias=False).to(teacher_features.device)
        nn.init.orthogonal_(learned.weight)
        return learned, nothing
    return nn.Identity(), principal_directions(teacher_features, width) if kind == "principal" else nothing
