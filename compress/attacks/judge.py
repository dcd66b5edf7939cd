"""Whether candidates for a torch model count: `edge.attacks.checks` and one plain call of the model.

Nothing is shared with what makes candidates.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from compress.attacks.contract import Model
from edge.attacks import checks
from edge.core.errors import CompressError

NORMS = ("linf", "l2")
#: Why a candidate is inadmissible, in the order in which it is looked at.
REASONS = ("not float32", *checks.FAULTS)
#: What is said of a model that is not `differentiable`.
NO_GRADIENT = (
    "the model's logits have no gradient by its images; attack it with square and rays alone, or make it "
    "differentiable (BPDA)"
)


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
    values = candidates.detach().cpu().float().numpy()  # of what is not float32 the rest is looked at all the same
    other_type = np.full(len(clean), candidates.dtype != torch.float32)
    reasons, admissible = np.zeros(len(REASONS), np.int64), np.ones(len(clean), bool)
    for number, fault in enumerate([other_type, *checks.faults(values, clean, eps, norm)]):
        reasons[number] = (fault & admissible).sum()
        admissible &= ~fault
    shown = torch.nan_to_num(candidates.detach().float()).clamp(0, 1)  # the model need not stand what does not count
    logits = checked_logits(model, shown)
    return CandidateJudgement(admissible, admissible & checks.wrong(logits, labels), margins(logits, labels), reasons)


def checked_logits(model: Model, x: Tensor) -> np.ndarray:
    """One plain float32 call: (B,C,H,W) → (B,K), checked to be one row of class scores an image."""
    with torch.no_grad():
        logits = model(x)
    if not isinstance(logits, Tensor):
        raise CompressError(
            f"the model returns a {type(logits).__name__}; give one that returns logits (images, classes) alone"
        )
    if logits.ndim != 2 or len(logits) != len(x) or logits.shape[1] < 2:
        raise CompressError(
            f"the model returns shape {tuple(logits.shape)} for {len(x)} images; logits (images, classes) are needed"
        )
    return logits.float().cpu().numpy()


def differentiable(model: Model, x: Tensor) -> bool:
    """Whether logits of x (B,C,H,W) know how they came from it; a gradient of zero is one."""
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        value = model(leaf).sum()
        return value.requires_grad and torch.autograd.grad(value, leaf, allow_unused=True)[0] is not None


def margins(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Largest wrong logit minus the true one, float32 (B,); +inf where a logit is no number."""
    rows = np.arange(len(labels))
    others = logits.copy()
    others[rows, labels] = -np.inf
    with np.errstate(invalid="ignore"):  # inf − inf is no number, and treated so
        difference = others.max(1) - logits[rows, labels]
    return np.where(np.isnan(difference), np.inf, difference).astype(np.float32)
