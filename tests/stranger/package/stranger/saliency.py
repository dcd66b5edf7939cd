"""Saliency matching: the student's loss has the teacher's slope by the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from compress.methods.base import Method, Taught, Weight, functional, torch
from compress.methods.objective import Terms, Views, stateless
from compress.methods.scores import divergences, from_teacher

if TYPE_CHECKING:
    from torch import Tensor

    from compress.networks.base import Classifier


class Saliency(Taught):
    """Robust soft labels, and slopes matched."""

    slope_weight: Weight = Field(1.0, description="weight of the squared distance between the slopes")


def saliency(views: Views, options: Saliency) -> Terms:
    """KL(T(x) ‖ S(x_adv)) + w ‖∇ₓ CE(S(x), y) − ∇ₓ CE(T(x), y)‖², nats; x_adv maximises KL(T(x) ‖ S(x')); w = 1."""
    taught = slope(views.batch.guide, views, trains=False)
    learned = slope(views.student, views, trains=True)
    return {
        "kl_adversarial": divergences(views.taught_clean.logits, views.adversarial.logits),
        "slopes": options.slope_weight * (learned - taught).square().flatten(1).sum(1),
    }


def slope(network: Classifier, views: Views, *, trains: bool) -> Tensor:
    """The gradient (B,C,H,W) of a network's cross-entropy by each clean image; weights learn from it if it `trains`."""
    x = views.x.detach().requires_grad_()
    with torch.enable_grad():
        loss = functional.cross_entropy(network(x), views.y, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, x, create_graph=trains)
    return gradient


METHOD = Method("saliency", Saliency, stateless(saliency, from_teacher), about="slopes by the image, matched")
