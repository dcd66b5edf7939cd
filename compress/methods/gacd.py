"""GACD-style distillation: the student's features contrasted with the teacher's, which anchor.

Bai, Chen, Zhao, Wen, Jiang, Kot: Feature Distillation With Guided Adversarial Contrastive Learning (2020). The abstract
fixes: contrast tied to mutual information, the teacher as anchor, sample weights against the teacher's errors. The rest
is reconstructed, an option in `Gacd` where it is open; no parity with the paper's tables is claimed.

With z_T(x), z_S(v) linear embeddings of penultimate features to `width`, of length 1, h = exp(⟨·,·⟩ / τ), and the
positives of image i its own views v ∈ {x_i, x_adv,i}:

    batch:  ℓ_i = ½ Σ_v − log ( h(z_T(x_i), z_S(v_i)) / Σ_{j ∈ {i} ∪ N(i)} h(z_T(x_i), z_S(v_j)) )          InfoNCE
    bank:   ℓ_i = ½ Σ_v Σ_a ( − log P⁺ / (P⁺ + k/n) − Σ_{j ∈ N(i)} log (k/n) / (P_j + k/n) ),  P = h / Z    NCE
    L       = host + weight · mean_i w_i ℓ_i,   w_i = p_T(y_i | x_i) / mean_j p_T(y_j | x_j)

N(i): the images of other classes in the batch, or among k drawn from a memory of z_S and z_T on all n training images,
the same for every anchor of the step; those of i's class too, but for i, where `mask_same_class` is false. An image of
the memory has no class until it was seen. The two halves a: the teacher's z_T(x_i) anchors and P_j is of the memory's
z_S, or the student's z_S(v_i) anchors and P_j is of the memory's z_T. What the memory holds is constant, so only the
second pushes the student away from negatives; within a batch the negatives are the student's own, and one half does.
Z of each half is n times the mean of h over the first batch's negatives. The bank's form is that of Tian et al. (2020),
whose negatives are drawn anew for each anchor, from all classes, and whose positives come from the memory too.
"""

from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from compress.methods.base import (
    Added,
    Classifier,
    Host,
    Method,
    Positive,
    Preparation,
    Tensor,
    Weight,
    functional,
    torch,
)
from compress.methods.objective import Addition, Terms, Views

HOST = "rslad"


class Gacd(Added):
    """GACD-style contrast: the teacher's features anchor, the student's of the same image attract."""

    host: Host = Field(HOST, description="the method that this one is added to")
    weight: Weight = Field(0.1, description="weight of the contrast")
    negatives: Literal["batch", "bank"] = Field(
        "batch", description="other images of the batch, or drawn from a memory of both networks on all training images"
    )
    bank_negatives: int = Field(4096, ge=1, description="images drawn from the bank in each step")
    bank_momentum: float = Field(0.5, ge=0, lt=1, description="weight of the past in the bank")
    temperature: Positive = Field(0.07, description="inner products of embeddings are divided by it")
    width: int = Field(128, ge=2, description="dimensions of the embeddings")
    reweight: bool = Field(True, description="weigh images by the teacher's probability of the true label")
    mask_same_class: bool = Field(True, description="images of the anchor's class are no negatives")


class GuidedContrast(Addition):
    """The term {"contrast"} of this module's docstring, (B,), weight and w_i on it, nats."""

    def __init__(
        self, options: Gacd, student: Classifier, teacher: Classifier, clean: Iterable[Tensor], images: int
    ) -> None:
        """`clean` yields batches of training images, `images` is how many there are, n."""
        from compress.methods.features import evaluated
        from compress.methods.memory import Bank

        self.options = options
        weight, few = next(student.parameters()), next(iter(clean))[:2]
        self.student_head, self.teacher_head = (
            torch.nn.Linear(evaluated(network, few).pooled.shape[1], options.width).to(weight.device, weight.dtype)
            for network in (student, teacher)
        )
        self.bank = Bank(options, images, weight) if options.negatives == "bank" else None
        heads = {"student_head": self.student_head, "teacher_head": self.teacher_head}
        super().__init__(**heads, **({} if self.bank is None else {"bank": self.bank}))

    def terms(self, views: Views) -> Terms:
        if not self.options.weight:
            return {}
        anchor = functional.normalize(self.teacher_head(views.taught_clean.pooled), dim=1)
        embedded = [functional.normalize(self.student_head(f.pooled), dim=1) for f in (views.clean, views.adversarial)]
        if self.bank is None:
            each = torch.stack([self._in_batch(anchor, z, views.y) for z in embedded]).mean(0)
        else:
            from compress.numerics.seeds import generator

            assert views.batch.index is not None, "a memory bank was not told which images it sees"
            at, draw = views.batch.index, generator(*views.batch.key, "negatives")
            each = self.bank.contrast(anchor, torch.stack(embedded), views.y, at, draw)
            self.bank.see(at, views.y, functional.normalize(embedded[0] + embedded[1], dim=1), anchor)
        if self.options.reweight:
            trust = views.taught_clean.logits.softmax(1).gather(1, views.y[:, None])[:, 0]
            each = each * trust / trust.mean().clamp(min=1e-12)
        return {"contrast": self.options.weight * each}

    def after_step(self) -> None:
        if self.bank is not None:
            self.bank.keep()

    def _in_batch(self, anchor: Tensor, z: Tensor, y: Tensor) -> Tensor:
        """ℓ of one view, (B,)."""
        scores = anchor @ z.T / self.options.temperature
        if self.options.mask_same_class:
            others = ~torch.eye(len(y), dtype=torch.bool, device=y.device)
            scores = scores.masked_fill((y[:, None] == y[None]) & others, -torch.inf)
        return scores.logsumexp(1) - scores.diagonal()


def _objective(options: Gacd, preparation: Preparation) -> GuidedContrast:
    student, teacher = preparation.student, preparation.teacher
    return GuidedContrast(options, student, teacher, preparation.clean, preparation.images)


METHOD = Method("gacd", Gacd, _objective, host=HOST, reads_features=True)
