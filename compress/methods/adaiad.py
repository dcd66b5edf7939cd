"""AdaIAD: IAD-I under AdaAD's attack, the teacher asked about the adversarial image (Huang et al. 2023, §4)."""

from compress.methods.batch import Views
from compress.methods.iad_i import introspective
from compress.methods.objective import Terms
from compress.methods.options import Introspective


def adaiad(views: Views, options: Introspective) -> Terms:
    """(1 − w) (t² KL(T(x_adv) / t ‖ S(x_adv) / t) + (1 − A) KL(S(x) ‖ S(x_adv))) + w CE(S(x), y), nats.

    x_adv maximises KL(T(x') ‖ S(x')); A as in `iad_i`; t = 30, w = 0, as the published code has them. Differs from that
    code in the attack's start: uniform in the ball, where it adds 1e-3 · N(0, 1).
    """
    return introspective(views, options, views.taught_adversarial.logits)
