"""SAAD: images weighed by how unsure the teacher is of them when attacked (Lee et al. 2026)."""

import contextlib

from pydantic import Field

from compress.methods.base import Classifier, Method, Preparation, Taught, Tensor, Weight, functional, torch
from compress.methods.igdm import gradient_misfit
from compress.methods.objective import Objective, Search, StatelessObjective, Terms, TrainingBatch, Views
from compress.methods.scores import divergence_of_halves, divergences, followed


class Saad(Taught):
    """Images weighed by the entropy of the teacher's scores under attack."""

    entropy_scale: Weight = Field(5.0, description="weight of an image per nat above the batch's least entropy")
    alpha: Weight = Field(1.0, description="weight of gradient matching (igdm) at the end of the run, rising from 0")
    beta: Weight = Field(
        0.0, description="weight of KL on clean images, largest where the teacher is sure under attack"
    )
    correction: Weight = Field(1.0, description="how much the teacher's true logit follows its gradient in the attack")


def saad(views: Views, options: Saad) -> Terms:
    """w_i (KL(T(x_adv) ‖ S(x_adv)) + α · progress · IGDM_i) + β (1 − ŵ_i) KL(T(x) ‖ S(x)), nats.

    w_i = s (H(T(x_adv))_i − min_j H(T(x_adv))_j), H in nats over the batch, ŵ = w between its extremes; s = 5, α = 1,
    β = 0. IGDM_i is `gradient_misfit`. x_adv: `from_corrected_teacher`. Differs from the published code in the attack's
    start (uniform in the ball, where the code adds 1e-3 · N(0, 1)); averaging the weights, which it does from epoch 95
    on, is `average: swa` of the training.
    """
    from compress.numerics import precision

    with precision.exact() if options.alpha else contextlib.nullcontext():  # one pass for both terms
        taught, own = views.taught_adversarial.logits, views.adversarial.logits
    log_p = taught.log_softmax(1)
    entropy = -(log_p.exp() * log_p).sum(1)
    above = entropy - entropy.min()
    weight = options.entropy_scale * above
    terms = {"kl_adversarial": weight * divergences(taught, own)}
    if options.alpha:
        terms["gradients"] = options.alpha * views.batch.progress * weight * gradient_misfit(views)
    if options.beta:
        sure = 1 - above / above.max().clamp(min=1e-8)
        terms["kl_clean"] = options.beta * sure * divergences(views.taught_clean.logits, views.clean.logits)
    return terms


def from_corrected_teacher(student: Classifier, batch: TrainingBatch, correction: float) -> Search:
    """KL(T(x) + γ e_y ∇T_y(x)·(x' − x) ‖ S(x')): the teacher's true logit follows x' to first order, γ = `correction`.

    One backward pass through the teacher for the whole attack.
    """
    from compress.networks.distributed import exchange_rows

    with torch.enable_grad():
        leaf = batch.x.detach().clone().requires_grad_()
        true = followed(batch, leaf).gather(1, batch.y[:, None])
        (own,) = torch.autograd.grad(true.sum(), leaf)
    slope, fixed = exchange_rows(own), batch.taught.logits
    label = functional.one_hot(batch.y, fixed.shape[1]).to(fixed)

    def both(x: Tensor) -> Tensor:
        moved = correction * (slope * (x - batch.x)).flatten(1).sum(1, keepdim=True)
        return torch.cat([student(x), fixed + moved * label], 1)

    return Search(both, divergence_of_halves)


def _objective(options: Saad, preparation: Preparation) -> Objective:
    return StatelessObjective(
        lambda views: saad(views, options),
        lambda student, batch: from_corrected_teacher(student, batch, options.correction),
        options.teacher_temperature,
    )


METHOD = Method("saad", Saad, _objective)
