"""AdaAD: the teacher answers for the adversarial image itself, in attack and update (Huang et al. 2023, eq. 5–6)."""

from pydantic import Field

from compress.methods.base import Method, Share, Taught
from compress.methods.objective import Terms, Views, stateless
from compress.methods.scores import divergences, from_teacher_there


class AdaAd(Taught):
    """Adaptive adversarial distillation."""

    adversarial_weight: Share = Field(1.0, description="weight of KL on adversarial images, the rest on clean")


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


METHOD = Method("adaad", AdaAd, stateless(adaad, from_teacher_there))
