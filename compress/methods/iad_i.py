"""IAD-I: the teacher is trusted as far as it stands itself, the student's own scores fill in (Zhu et al. 2022)."""

from pydantic import Field

from compress.methods.base import Method, Share, Tempered, Tensor, Weight, torch
from compress.methods.objective import Terms, Views, stateless
from compress.methods.scores import divergences, from_labels, smoothed_cross_entropy, tempered


class Introspective(Tempered):
    """Introspective adversarial distillation, one teacher."""

    begin: Share = Field(60 / 200, description="share of the run after which the student also learns from itself")
    beta: Weight = Field(0.1, description="the teacher is trusted by its probability of the true label to this power")
    label_weight: Share = Field(0.0, description="weight of cross-entropy on clean images, the rest is distillation")


def iad_i(views: Views, options: Introspective) -> Terms:
    """(1 − w) (t² KL(T(x) / t ‖ S(x_adv) / t) + (1 − A) KL(S(x) ‖ S(x_adv))) + w CE(S(x), y), nats.

    x_adv maximises CE(S(x'), y); t = 1, w = 0. A is 1 before the share `begin` of the run, `trust` from then on. As in
    the published code, A does not weigh the teacher's own term, which it does in the paper. Differs from
    that code in the attack, which finds the student in evaluation mode.
    """
    return introspective(views, options, views.taught_clean.logits)


def introspective(views: Views, options: Introspective, target: Tensor) -> Terms:
    """The terms of `iad_i` with the teacher's logits `target` (B,K)."""
    weight = options.label_weight
    distilled = tempered(target, views.adversarial.logits, options.temperature)
    own = torch.zeros_like(distilled)
    if views.batch.progress >= options.begin:
        own = introspection(views, trust(views, options.beta))
    terms = {"kl_adversarial": (1 - weight) * distilled, "introspection": (1 - weight) * own}
    if weight:
        terms["clean"] = weight * smoothed_cross_entropy(views.clean.logits, views.y)
    return terms


def trust(views: Views, beta: float) -> Tensor:
    """A = p_T(y | x_adv)^β of each image, (B,), in [0, 1]."""
    scores = views.taught_adversarial.logits.softmax(1)
    return scores.gather(1, views.y[:, None])[:, 0] ** beta


def introspection(views: Views, trusted: Tensor) -> Tensor:
    """(1 − A) KL(S(x) ‖ S(x_adv)) of each image, (B,), nats; followed through both sides, as in the published code."""
    return (1 - trusted) * divergences(views.clean.logits, views.adversarial.logits)


METHOD = Method("iad-i", Introspective, stateless(iad_i, from_labels))
