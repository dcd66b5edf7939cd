"""Whether a candidate counts: NumPy and one plain call of the model, nothing shared with what makes candidates."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from compress.attacks.contract import Model
from edge.core.errors import CompressError

SLACK = 1e-6  # on eps: a float32 image cannot hold every sum x + eps
NORMS = ("linf", "l2")
#: Why a candidate is inadmissible, in the order in which it is looked at.
REASONS = ("not float32", "not finite", "outside [0, 1]", "outside the ball")


@dataclass(frozen=True)
class CandidateJudgement:
    """Of B candidates."""

    admissible: np.ndarray  # bool (B,)
    broke: np.ndarray  # bool (B,): admissible and misclassified
    margins: np.ndarray  # float32 (B,): largest wrong logit minus the true one; +inf where a logit is no number
    reasons: np.ndarray  # int64 (4,): inadmissible candidates by the first of `REASONS` that holds


def judge_candidates(
    model: Model, candidates: Tensor, clean: np.ndarray, labels: np.ndarray, *, eps: float, norm: str
) -> CandidateJudgement:
    """`candidates` (B,C,H,W) of the float32 images `clean` (B,C,H,W) with `labels` (B,)."""
    if tuple(candidates.shape) != clean.shape:
        raise CompressError(
            f"candidates of shape {tuple(candidates.shape)} for images of shape {clean.shape}; "
            f"an attack gives one candidate an image"
        )
    faults = _faults(candidates.detach().cpu().numpy(), clean, eps, norm)
    reasons, admissible = np.zeros(len(REASONS), np.int64), np.ones(len(clean), bool)
    for number, fault in enumerate(faults):
        reasons[number] = (fault & admissible).sum()
        admissible &= ~fault
    shown = torch.nan_to_num(candidates.detach().float()).clamp(0, 1)  # the model need not stand what does not count
    answers = checked_logits(model, shown)
    return CandidateJudgement(admissible, admissible & wrong(answers, labels), margins(answers, labels), reasons)


def checked_logits(model: Model, x: Tensor) -> np.ndarray:
    """One plain float32 call: (B,C,H,W) → (B,K), checked to be one row of class scores an image."""
    with torch.no_grad():
        found = model(x)
    if not isinstance(found, Tensor):
        raise CompressError(
            f"the model returns a {type(found).__name__}; give one that returns logits (images, classes) alone"
        )
    if found.ndim != 2 or len(found) != len(x) or found.shape[1] < 2:
        raise CompressError(
            f"the model returns shape {tuple(found.shape)} for {len(x)} images; logits (images, classes) are needed"
        )
    return found.float().cpu().numpy()


def differentiable(model: Model, x: Tensor) -> bool:
    """Whether logits of x (B,C,H,W) know how they came from it; a gradient of zero is one."""
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        value = model(leaf).sum()
        return value.requires_grad and torch.autograd.grad(value, leaf, allow_unused=True)[0] is not None


def wrong(answers: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Whether another logit than the label's is largest, of equal ones the first, or one is no number. (B,K) → (B,)."""
    return np.asarray((answers.argmax(1) != labels) | np.isnan(answers).any(1))


def margins(answers: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Largest wrong logit minus the true one, float32 (B,); +inf where a logit is no number."""
    rows = np.arange(len(labels))
    others = answers.copy()
    others[rows, labels] = -np.inf
    with np.errstate(invalid="ignore"):  # inf − inf is no number, and treated so
        found = others.max(1) - answers[rows, labels]
    return np.where(np.isnan(found), np.inf, found).astype(np.float32)


def _faults(candidates: np.ndarray, clean: np.ndarray, eps: float, norm: str) -> list[np.ndarray]:
    """Bool (B,) for each of `REASONS`."""
    flat = candidates.reshape(len(clean), -1).astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):  # of what is not finite nothing else is asked
        delta = flat - clean.reshape(len(clean), -1).astype(np.float64)
        size = np.abs(delta).max(1) if norm == "linf" else np.sqrt((delta**2).sum(1))
        return [
            np.full(len(clean), candidates.dtype != np.float32),
            ~np.isfinite(flat).all(1),
            ((flat < 0) | (flat > 1)).any(1),
            ~(size <= eps + SLACK),
        ]
