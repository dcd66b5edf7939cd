"""RSLAD: robust soft labels in attack and update (Zi et al. 2021, eq. 5–7)."""

from pydantic import Field

from compress.methods.base import Method, Share, Taught
from compress.methods.objective import Terms, Views, stateless
from compress.methods.scores import divergences, from_teacher


class Rslad(Taught):
    """Robust soft label adversarial distillation."""

    adversarial_weight: Share = Field(5 / 6, description="weight of KL on adversarial images, the rest on clean")


def rslad(views: Views, options: Rslad) -> Terms:
    """w KL(T(x) ‖ S(x_adv)) + (1 − w) KL(T(x) ‖ S(x)), nats; x_adv maximises KL(T(x) ‖ S(x')); w = 5/6.

    Differs from the published code in the reduction (mean over the batch, not over batch and classes) and in the
    attack's start (uniform in the ball, where the code adds 1e-3 · N(0, 1)).
    """
    weight, target = options.adversarial_weight, views.taught_clean.logits
    return {
        "kl_adversarial": weight * divergences(target, views.adversarial.logits),
        "kl_clean": (1 - weight) * divergences(target, views.clean.logits),
    }


METHOD = Method("rslad", Rslad, stateless(rslad, from_teacher))
