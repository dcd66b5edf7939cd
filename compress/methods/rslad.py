"""RSLAD: robust soft labels in attack and update (Zi et al. 2021, eq. 5–7)."""

from compress.methods.batch import Views
from compress.methods.kl import divergences
from compress.methods.objective import Terms
from compress.methods.options import Rslad


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
