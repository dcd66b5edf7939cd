"""LTD: labels softened by a teacher of low temperature (Chen & Lee 2021)."""

from pydantic import Field

from compress.methods.base import Method, Positive, Taught
from compress.methods.objective import Terms, Views, stateless
from compress.methods.scores import divergences, from_teacher


class Ltd(Taught):
    """Low-temperature distillation."""

    teacher_temperature: Positive = Field(
        0.5, description="the teacher's logits are divided by it: below 1 its scores are sharper"
    )


def ltd(views: Views, options: Ltd) -> Terms:
    """KL(T(x) / τ ‖ S(x_adv)), nats: adversarial training towards soft labels; x_adv maximises the same.

    τ is `teacher_temperature`; the student's temperature is 1, in training and use. Reconstructed from the abstract,
    which names no number: τ = ½ is our choice.
    """
    return {"kl_adversarial": divergences(views.taught_clean.logits, views.adversarial.logits)}


METHOD = Method("ltd", Ltd, stateless(ltd, from_teacher))
