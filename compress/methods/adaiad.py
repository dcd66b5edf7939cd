"""AdaIAD: IAD-I under AdaAD's attack, the teacher asked about the adversarial image (Huang et al. 2023, §4)."""

from pydantic import Field

from compress.methods.base import Method, Positive
from compress.methods.iad_i import Introspective, introspective
from compress.methods.objective import Terms, Views, stateless
from compress.methods.scores import from_teacher_there


class AdaIad(Introspective):
    """The same, the teacher asked about adversarial images, under AdaAD's attack."""

    temperature: Positive = Field(
        30.0, description="teacher's and student's logits are divided by it, KL times its square"
    )


def adaiad(views: Views, options: Introspective) -> Terms:
    """(1 − w) (t² KL(T(x_adv) / t ‖ S(x_adv) / t) + (1 − A) KL(S(x) ‖ S(x_adv))) + w CE(S(x), y), nats.

    x_adv maximises KL(T(x') ‖ S(x')); A as in `iad_i`; t = 30, w = 0, as the published code has them. Differs from that
    code in the attack's start: uniform in the ball, where it adds 1e-3 · N(0, 1).
    """
    return introspective(views, options, views.taught_adversarial.logits)


METHOD = Method("adaiad", AdaIad, stateless(adaiad, from_teacher_there))
