"""AKD2: labels, a robust teacher and a clean one, all on adversarial images (Chen et al. 2021, as in IAD's code)."""

from compress.methods.batch import Views
from compress.methods.kl import tempered
from compress.methods.objective import Terms
from compress.methods.options import TwoTeachers
from compress.methods.supervised import cross_entropy


def akd2(views: Views, options: TwoTeachers) -> Terms:
    """(1 − a − c) CE(S, y) + a t² KL(T / t ‖ S / t) + c t² KL(T_nat / t ‖ S / t), nats, all of x_adv.

    T_nat is the teacher trained on clean images; x_adv maximises CE(S(x'), y); a = ½, c = ¼, t = 1. Differs from the
    published code in the attack, which finds the student in evaluation mode.
    """
    distilled = tempered(views.taught_adversarial.logits, views.adversarial.logits, options.temperature)
    return {"kl_adversarial": options.teacher_weight * distilled, **labels_and_clean_teacher(views, options)}


def labels_and_clean_teacher(views: Views, options: TwoTeachers) -> Terms:
    """The terms of `akd2` without the robust teacher."""
    logits, natural = views.adversarial.logits, views.batch.teach_clean(views.x_adv).logits
    weight = options.clean_teacher_weight
    terms = {"kl_clean_teacher": weight * tempered(natural, logits, options.temperature)}
    if options.label_weight:
        terms["adversarial"] = options.label_weight * cross_entropy(logits, views.y)
    return terms
