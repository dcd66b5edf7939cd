"""ARD: distillation in the place of labels in adversarial training (Goldblum et al. 2020)."""

from compress.methods.batch import Views
from compress.methods.kl import tempered
from compress.methods.objective import Terms
from compress.methods.options import Ard
from compress.methods.supervised import cross_entropy


def ard(views: Views, options: Ard) -> Terms:
    """(1 − w) t² KL(T(x) / t ‖ S(x_adv) / t) + w CE(S(x), y), nats; x_adv maximises CE(S(x'), y); t = 30, w = 0.

    Differs from the published code in the reduction (mean over the batch, not over batch and classes) and in the
    attack, which finds the student in evaluation mode.
    """
    weight = options.label_weight
    distilled = tempered(views.taught_clean.logits, views.adversarial.logits, options.temperature)
    terms = {"kl_adversarial": (1 - weight) * distilled}
    if weight:
        terms["clean"] = weight * cross_entropy(views.clean.logits, views.y)
    return terms
