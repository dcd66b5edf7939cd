"""GACD-style distillation: the student's features contrasted with the teacher's, which anchor.

Bai, Chen, Zhao, Wen, Jiang, Kot: Feature Distillation With Guided Adversarial Contrastive Learning (2020). The abstract
fixes: contrast tied to mutual information, the teacher as anchor, sample weights against the teacher's errors. The rest
is reconstructed, an option in `options.Gacd` where it is open; no parity with the paper's tables is claimed.

With z_T(x), z_S(v) linear embeddings of penultimate features to `width`, of length 1, h = exp(⟨·,·⟩ / τ), and the
positives of image i its own views v ∈ {x_i, x_adv,i}:

    batch:  ℓ_i = ½ Σ_v − log ( h(z_T(x_i), z_S(v_i)) / Σ_{j ∈ {i} ∪ N(i)} h(z_T(x_i), z_S(v_j)) )          InfoNCE
    bank:   ℓ_i = ½ Σ_v ( − log P⁺ / (P⁺ + k/n) − Σ_{j ∈ N(i)} log (k/n) / (P_j + k/n) ),  P = h / Z     NCE
    L       = host + weight · mean_i w_i ℓ_i,   w_i = p_T(y_i | x_i) / mean_j p_T(y_j | x_j)

N(i): the other images of the batch, or k images drawn from a memory of z_S on all n training images, the same for every
anchor of the step; without those of i's class where these are masked. Z is n times the mean of h over the first batch's
negatives (Tian et al. 2020, whose form the bank's is; theirs draws anew for each anchor and has a second half in which
the student anchors).
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from compress.methods.addition import Addition
from compress.methods.bank import Bank
from compress.methods.batch import Views
from compress.methods.levels import asked
from compress.methods.objective import Terms
from compress.methods.options import Gacd
from compress.networks import Classifier
from compress.numerics.seeds import generator


class GuidedContrast(Addition):
    """The term {"contrast"} of this module's docstring, (B,), weight and w_i on it, nats."""

    def __init__(
        self, options: Gacd, student: Classifier, teacher: Classifier, clean: Iterable[Tensor], images: int
    ) -> None:
        """`clean` yields batches of training images, `images` is how many there are, n."""
        super().__init__()
        self.options = options
        weight, few = next(student.parameters()), next(iter(clean))[:2]
        widths = [asked(network, few).pooled.shape[1] for network in (student, teacher)]
        self.student_head, self.teacher_head = (
            nn.Linear(width, options.width).to(weight.device, weight.dtype) for width in widths
        )
        self.bank = Bank(options, images, weight) if options.negatives == "bank" else None

    def terms(self, views: Views) -> Terms:
        anchor = functional.normalize(self.teacher_head(views.taught_clean.pooled), dim=1)
        seen = [functional.normalize(self.student_head(f.pooled), dim=1) for f in (views.clean, views.adversarial)]
        each = torch.stack([self._contrast(anchor, z, views) for z in seen]).mean(0)
        if self.bank is not None:
            self.bank.see(_index(views), views.y, functional.normalize(seen[0] + seen[1], dim=1))
        if self.options.reweight:
            trust = views.taught_clean.logits.softmax(1).gather(1, views.y[:, None])[:, 0]
            each = each * trust / trust.mean().clamp(min=1e-12)
        return {"contrast": self.options.weight * each}

    def after_step(self) -> None:
        if self.bank is not None:
            self.bank.keep()

    def _contrast(self, anchor: Tensor, z: Tensor, views: Views) -> Tensor:
        """ℓ of one view, (B,)."""
        if self.bank is None:
            return self._batch(anchor, z, views.y)
        draw = generator(*views.batch.key, "negatives")  # the same for both views
        return self.bank.contrast(anchor, z, views.y, _index(views), draw)

    def _batch(self, anchor: Tensor, z: Tensor, y: Tensor) -> Tensor:
        scores = anchor @ z.T / self.options.temperature
        if self.options.mask_same_class:
            others = ~torch.eye(len(y), dtype=torch.bool, device=y.device)
            scores = scores.masked_fill((y[:, None] == y[None]) & others, -torch.inf)
        return scores.logsumexp(1) - scores.diagonal()


def _index(views: Views) -> Tensor:
    assert views.batch.index is not None, "a memory bank was not told which images it sees"
    return views.batch.index
