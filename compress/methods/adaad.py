"""AdaAD: the teacher answers for the adversarial image itself, in attack and update (Huang et al. 2023, eq. 5–6)."""

from compress.methods.batch import Views
from compress.methods.kl import divergences
from compress.methods.objective import Terms
from compress.methods.options import AdaAd


def adaad(views: Views, options: AdaAd) -> Terms:
    """w KL(T(x_adv) ‖ S(x_adv)) + (1 − w) KL(T(x) ‖ S(x)), nats; x_adv maximises KL(T(x') ‖ S(x')); w = 1.

    Differs from the published code in the reduction (mean over the batch, which that code has for CIFAR-100 alone), in
    the attack's start (uniform in the ball, where the code adds 1e-3 · N(0, 1)), and in that S(x) is not computed
    where its weight is 0: there it still moves BatchNorm's statistics.
    """
    weight = options.adversarial_weight
    terms = {"kl_adversarial": weight * divergences(views.taught_adversarial.logits, views.adversarial.logits)}
    if weight < 1:
        terms["kl_clean"] = (1 - weight) * divergences(views.taught_clean.logits, views.clean.logits)
    return terms
