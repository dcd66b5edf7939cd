"""ARD: distillation in the place of labels in adversarial training (Goldblum et al. 2020)."""

from pydantic import Field

from compress.methods.base import Method, Positive, Share, Tempered
from compress.methods.objective import Terms, Views, stateless
from compress.methods.scores import from_labels, smoothed_cross_entropy, tempered


class Ard(Tempered):
    """Adversarially robust distillation."""

    temperature: Positive = Field(
        30.0, description="teacher's and student's logits are divided by it, KL times its square"
    )
    label_weight: Share = Field(0.0, description="weight of cross-entropy on clean images, the rest is distillation")


def ard(views: Views, options: Ard) -> Terms:
    """(1 − w) t² KL(T(x) / t ‖ S(x_adv) / t) + w CE(S(x), y), nats; x_adv maximises CE(S(x'), y); t = 30, w = 0.

    Differs from the published code in the reduction (mean over the batch, not over batch and classes) and in the
    attack, which finds the student in evaluation mode.
    """
    weight = options.label_weight
    distilled = tempered(views.taught_clean.logits, views.adversarial.logits, options.temperature)
    terms = {"kl_adversarial": (1 - weight) * distilled}
    if weight:
        terms["clean"] = weight * smoothed_cross_entropy(views.clean.logits, views.y)
    return terms


METHOD = Method("ard", Ard, stateless(ard, from_labels))
