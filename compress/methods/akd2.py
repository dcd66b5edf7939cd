"""AKD2: labels, a robust teacher and a clean one, all on adversarial images (Chen et al. 2021, as in IAD's code)."""

from pydantic import Field, model_validator

from compress.methods.base import Method, Share, Tempered
from compress.methods.objective import Terms, Views, stateless
from compress.methods.scores import from_labels, smoothed_cross_entropy, tempered


class TwoTeachers(Tempered):
    """A robust teacher and one that was trained on clean images, both asked about adversarial ones."""

    teacher_weight: Share = Field(0.5, description="weight of KL to the robust teacher")
    clean_teacher_weight: Share = Field(
        0.25, description="weight of KL to the clean teacher; what is left is the labels'"
    )

    @model_validator(mode="after")
    def _shares(self) -> "TwoTeachers":
        if self.label_weight < 0:
            raise ValueError(
                f"teacher_weight {self.teacher_weight:g} and clean_teacher_weight {self.clean_teacher_weight:g} add up "
                f"to more than 1; give shares of one loss"
            )
        return self

    @property
    def label_weight(self) -> float:
        """The weight of cross-entropy: what the teachers leave, to rounding."""
        return round(1 - self.teacher_weight - self.clean_teacher_weight, 12)


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
        terms["adversarial"] = options.label_weight * smoothed_cross_entropy(logits, views.y)
    return terms


METHOD = Method("akd2", TwoTeachers, stateless(akd2, from_labels), teachers=2)
