"""LTD: labels softened by a teacher of low temperature (Chen & Lee 2021)."""

from compress.losses.batch import Views
from compress.losses.kl import divergences
from compress.losses.objective import Terms
from compress.options import Ltd


def ltd(views: Views, options: Ltd) -> Terms:
    """KL(T(x) / τ ‖ S(x_adv)), nats: adversarial training towards soft labels; x_adv maximises the same.

    τ is `teacher_temperature`; the student's temperature is 1, in training and use. Reconstructed from the abstract,
    which names no number: τ = ½ is our choice.
    """
    return {"kl_adversarial": divergences(views.taught_clean.logits, views.adversarial.logits)}
