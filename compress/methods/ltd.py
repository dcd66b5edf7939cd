"""LTD: labels softened by a teacher of low temperature (Chen & Lee 2021)."""

from compress.methods.batch import Views
from compress.methods.kl import divergences
from compress.methods.objective import Terms
from compress.methods.options import Ltd


def ltd(views: Views, options: Ltd) -> Terms:
    """KL(T(x) / τ ‖ S(x_adv)), nats: adversarial training towards soft labels; x_adv maximises the same.

    τ is `teacher_temperature`; the student's temperature is 1, in training and use. Reconstructed from the abstract,
    which names no number: τ = ½ is our choice.
    """
    return {"kl_adversarial": divergences(views.taught_clean.logits, views.adversarial.logits)}
