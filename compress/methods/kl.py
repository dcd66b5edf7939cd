"""The divergence that every distillation here is built from."""

from torch import Tensor


def divergences(teacher: Tensor, student: Tensor) -> Tensor:
    """KL(softmax teacher ‖ softmax student) of each image, sum over classes; logits (B,K) → (B,), nats.

    `nn.KLDivLoss()` with its default reduction, as published code uses it, also divides the batch's mean by K.
    """
    log_p = teacher.log_softmax(1)
    return (log_p.exp() * (log_p - student.log_softmax(1))).sum(1)


def kl(teacher: Tensor, student: Tensor) -> Tensor:
    """The mean of `divergences` over the batch, ()."""
    return divergences(teacher, student).mean()


def tempered(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """t² KL(softmax teacher / t ‖ softmax student / t) of each image, (B,), nats (Hinton et al. 2015, §2.1).

    t² keeps the size of the gradient as t grows: towards (1 / 2K) ‖teacher − student‖² of logits without their means.
    """
    return temperature**2 * divergences(teacher / temperature, student / temperature)
