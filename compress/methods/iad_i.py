"""IAD-I: the teacher is trusted as far as it stands itself, the student's own scores fill in (Zhu et al. 2022)."""

import torch
from torch import Tensor

from compress.methods.batch import Views
from compress.methods.kl import divergences, tempered
from compress.methods.objective import Terms
from compress.methods.options import Introspective
from compress.methods.supervised import cross_entropy


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
        terms["clean"] = weight * cross_entropy(views.clean.logits, views.y)
    return terms


def trust(views: Views, beta: float) -> Tensor:
    """A = p_T(y | x_adv)^β of each image, (B,), in [0, 1]."""
    scores = views.taught_adversarial.logits.softmax(1)
    return scores.gather(1, views.y[:, None])[:, 0] ** beta


def introspection(views: Views, trusted: Tensor) -> Tensor:
    """(1 − A) KL(S(x) ‖ S(x_adv)) of each image, (B,), nats; followed through both sides, as in the published code."""
    return (1 - trusted) * divergences(views.clean.logits, views.adversarial.logits)
