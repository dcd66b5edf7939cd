"""The divergence that every distillation here is built from."""

from torch import Tensor


def kl(teacher: Tensor, student: Tensor) -> Tensor:
    """KL(softmax teacher ‖ softmax student), sum over classes, mean over the batch; logits (B,K) → ().

    `nn.KLDivLoss()` with its default reduction, as published code uses it, also divides by K.
    """
    log_p = teacher.log_softmax(1)
    return (log_p.exp() * (log_p - student.log_softmax(1))).sum(1).mean()
