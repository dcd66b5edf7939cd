"""SAAD: images weighed by how unsure the teacher is of them when attacked (Lee et al. 2026)."""

import torch
from torch import Tensor

from compress.methods.batch import Batch, Views
from compress.methods.igdm import gradient_misfit
from compress.methods.kl import divergences
from compress.methods.objective import Search, Terms
from compress.methods.options import Saad
from compress.methods.searches import followed
from compress.networks import Classifier
from compress.networks.distributed import exchange


def saad(views: Views, options: Saad) -> Terms:
    """w_i (KL(T(x_adv) ‖ S(x_adv)) + α · progress · IGDM_i) + β (1 − ŵ_i) KL(T(x) ‖ S(x)), nats.

    w_i = s (H(T(x_adv))_i − min_j H(T(x_adv))_j), H in nats over the batch, ŵ = w between its extremes; s = 5, α = 1,
    β = 0. IGDM_i is `gradient_misfit`. x_adv: `from_corrected_teacher`. Differs from the published code in the attack's
    start (uniform in the ball, where the code adds 1e-3 · N(0, 1)); averaging the weights, which it does from epoch 95
    on, is `average: swa` of the training.
    """
    log_p = views.taught_adversarial.logits.log_softmax(1)
    entropy = -(log_p.exp() * log_p).sum(1)
    above = entropy - entropy.min()
    weight = options.entropy_scale * above
    terms = {"kl_adversarial": weight * divergences(views.taught_adversarial.logits, views.adversarial.logits)}
    if options.alpha:
        terms["gradients"] = options.alpha * views.batch.progress * weight * gradient_misfit(views)
    if options.beta:
        sure = 1 - above / above.max().clamp(min=1e-8)
        terms["kl_clean"] = options.beta * sure * divergences(views.taught_clean.logits, views.clean.logits)
    return terms


def from_corrected_teacher(student: Classifier, batch: Batch, correction: float) -> Search:
    """KL(T(x) + γ e_y ∇T_y(x)·(x' − x) ‖ S(x')): the teacher's true logit follows x' to first order, γ = `correction`.

    One backward pass through the teacher for the whole attack.
    """
    with torch.enable_grad():
        leaf = batch.x.detach().clone().requires_grad_()
        true = followed(batch, leaf).gather(1, batch.y[:, None])
        (own,) = torch.autograd.grad(true.sum(), leaf)
    slope, fixed = exchange(own), batch.taught.logits
    label = torch.nn.functional.one_hot(batch.y, fixed.shape[1]).to(fixed)

    def both(x: Tensor) -> Tensor:
        moved = correction * (slope * (x - batch.x)).flatten(1).sum(1, keepdim=True)
        return torch.cat([student(x), fixed + moved * label], 1)

    def loss(logits: Tensor) -> Tensor:
        mine, theirs = logits.chunk(2, 1)
        return divergences(theirs, mine)

    return Search(both, loss)
