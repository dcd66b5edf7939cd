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


def verdict(y: Tensor) -> ImageLoss:
    """The margin where `edge.attacks.checks.wrong` decides the sign: > 0 exactly where the prediction is wrong.

    argmax decides a tie, as it does a prediction; a logit that is no number is the strongest success, +inf.
    """

    def loss(logits: Tensor) -> Tensor:
        value = margin(y)(logits)
        tie = torch.where(logits.argmax(1) == y, -1.0, 1.0).to(logits.dtype) * torch.finfo(logits.dtype).tiny
        value = torch.where((value == 0) | value.isnan(), tie, value)  # inf − inf is a tie too
        return torch.where(logits.isnan().any(1), torch.inf, value)

    return loss


def targeted_margin(y: Tensor, target: Tensor) -> ImageLoss:
    """The target's logit minus the true one, (B,)."""
    return lambda logits: (logits.gather(1, target[:, None]) - logits.gather(1, y[:, None]))[:, 0]


def targeted_cross_entropy(target: Tensor) -> ImageLoss:
    """Log-probability of the target, (B,)."""
    return lambda logits: -functional.cross_entropy(logits, target, reduction="none")


def dlr(y: Tensor) -> ImageLoss:
    """Difference of logits ratio (Croce & Hein 2020, eq. 4): the margin over the gap from the largest to the third.

    With two classes there is no third logit: the margin itself.
    """

    def loss(logits: Tensor) -> Tensor:
        if logits.shape[1] < 3:
            return margin(y)(logits)
        top = logits.topk(3, 1).values
        return margin(y)(logits) / (top[:, 0] - top[:, 2] + 1e-12)

    return loss


def targeted_dlr(y: Tensor, target: Tensor) -> ImageLoss:
    """Targeted DLR (Croce & Hein 2020, eq. 6): target minus true, over the gap to the mean of the third and fourth.

    Below four classes there is no fourth logit: the difference itself.
    """

    def loss(logits: Tensor) -> Tensor:
        difference = targeted_margin(y, target)(logits)
        if logits.shape[1] < 4:
            return difference
        top = logits.topk(4, 1).values
        return difference / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + 1e-12)

    return loss
