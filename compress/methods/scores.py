"""The losses between scores that methods are built from, and the searches that ascend them, by what they leave."""

from __future__ import annotations

from compress.methods.base import Classifier, Tensor, functional, torch
from compress.methods.objective import Search, TrainingBatch
from edge.core.errors import CompressError


def divergences(teacher: Tensor, student: Tensor) -> Tensor:
    """KL(softmax teacher ‖ softmax student) of each image, sum over classes; logits (B,K) → (B,), nats.

    `nn.KLDivLoss()` with its default reduction, as published code uses it, also divides the batch's mean by K.
    """
    log_p = teacher.log_softmax(1)
    return (log_p.exp() * (log_p - student.log_softmax(1))).sum(1)


def tempered(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """t² KL(softmax teacher / t ‖ softmax student / t) of each image, (B,), nats (Hinton et al. 2015, §2.1).

    t² keeps the size of the gradient as t grows: towards (1 / 2K) ‖teacher − student‖² of logits without their means.
    """
    return temperature**2 * divergences(teacher / temperature, student / temperature)


def smoothed_cross_entropy(logits: Tensor, y: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of each image, (B,), nats; `smoothing` of the target is spread over all classes."""
    return functional.cross_entropy(logits, y, reduction="none", label_smoothing=smoothing)


def followed(batch: TrainingBatch, x: Tensor) -> Tensor:
    """The teacher's logits (B,K), over its temperature, with their gradient by the images (B,C,H,W)."""
    logits = batch.guide(x)
    if x.requires_grad and not logits.requires_grad:
        raise CompressError(
            "the teacher gives no gradients by its images, as an ONNX file does not, which this attack follows; "
            "choose another --method, e.g. rslad"
        )
    return logits / batch.temperature


def from_labels(student: Classifier, batch: TrainingBatch) -> Search:
    """CE(S(x'), y)."""
    from compress.attacks import losses

    return Search(student, losses.cross_entropy(batch.y))


def from_teacher(student: Classifier, batch: TrainingBatch) -> Search:
    """KL(T(x) ‖ S(x')), T(x) fixed."""
    from compress.attacks import losses

    return Search(student, losses.divergence(batch.taught.logits))


def from_itself(student: Classifier, batch: TrainingBatch) -> Search:
    """KL(S(x) ‖ S(x')), S(x) fixed. Flat at x' = x: the start must lie elsewhere."""
    from compress.attacks import losses

    with torch.no_grad():
        return Search(student, losses.divergence(student(batch.x)))


def from_teacher_there(student: Classifier, batch: TrainingBatch) -> Search:
    """KL(T(x') ‖ S(x')), followed through student and teacher (Huang et al. 2023, eq. 5)."""

    def both(x: Tensor) -> Tensor:
        return torch.cat([student(x), followed(batch, x)], 1)

    return Search(both, divergence_of_halves)


def divergence_of_halves(logits: Tensor) -> Tensor:
    """KL(teacher ‖ student), (B,), of the student's and the teacher's logits side by side, (B,2K)."""
    mine, theirs = logits.chunk(2, 1)
    return divergences(theirs, mine)
