"""What an attack ascends: one value an image, larger is worse for the model."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

#: logits (B,K) → (B,)
ImageLoss = Callable[[Tensor], Tensor]


def cross_entropy(y: Tensor) -> ImageLoss:
    """Cross-entropy of the true label, (B,)."""
    return lambda logits: functional.cross_entropy(logits, y, reduction="none")


def margin(y: Tensor) -> ImageLoss:
    """Largest wrong logit minus the true one (Carlini & Wagner 2017, f₆ without clipping); > 0 is misclassified."""

    def loss(logits: Tensor) -> Tensor:
        true = logits.gather(1, y[:, None])[:, 0]
        wrong = logits.scatter(1, y[:, None], -torch.inf).amax(1)
        return wrong - true

    return loss


def temperature(y: Tensor, t: float) -> ImageLoss:
    """Cross-entropy of logits / t: gradients survive logits whose softmax has saturated."""
    return lambda logits: functional.cross_entropy(logits / t, y, reduction="none")


def divergence(target: Tensor) -> ImageLoss:
    """KL(softmax target ‖ softmax logits), (B,); `target` logits (B,K), detached by the caller."""
    p = target.softmax(1)
    entropy = (p * target.log_softmax(1)).sum(1)
    return lambda logits: entropy - (p * logits.log_softmax(1)).sum(1)
