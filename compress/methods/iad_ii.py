"""IAD-II: AKD2 whose robust teacher is trusted as far as it stands itself (Zhu et al. 2022)."""

from pydantic import Field

from compress.methods.akd2 import TwoTeachers, labels_and_clean_teacher
from compress.methods.base import Method, Share, Weight, torch
from compress.methods.iad_i import introspection, trust
from compress.methods.objective import Terms, Views, stateless
from compress.methods.scores import from_labels, tempered


class IadII(TwoTeachers):
    """Introspective adversarial distillation, two teachers."""

    begin: Share = Field(40 / 200, description="share of the run after which the student also learns from itself")
    beta: Weight = Field(0.1, description="the teacher is trusted by its probability of the true label to this power")


def iad_ii(views: Views, options: IadII) -> Terms:
    """AKD2 with a t² (A KL(T(x_adv) / t ‖ S(x_adv) / t) + (1 − A) KL(S(x) ‖ S(x_adv))) in the place of its second term.

    A is 1 before the share `begin` of the run, p_T(y | x_adv)^β from then on. Differs from the published code in the
    attack, which finds the student in evaluation mode.
    """
    weight = options.teacher_weight
    distilled = tempered(views.taught_adversarial.logits, views.adversarial.logits, options.temperature)
    rest = labels_and_clean_teacher(views, options)
    own = torch.zeros_like(distilled)
    if views.batch.progress >= options.begin:
        trusted = trust(views, options.beta)
        distilled, own = trusted * distilled, options.temperature**2 * introspection(views, trusted)
    return {"kl_adversarial": weight * distilled, "introspection": weight * own, **rest}


METHOD = Method("iad-ii", IadII, stateless(iad_ii, from_labels), teachers=2)
