"""The losses that training attacks ascend, by the name of what the student is driven away from."""

import torch
from torch import Tensor

from compress.attacks import losses as attack_losses
from compress.methods.batch import Batch
from compress.methods.kl import divergences
from compress.methods.objective import Search
from compress.networks import Classifier
from edge.core.errors import CompressError


def followed(batch: Batch, x: Tensor) -> Tensor:
    """The teacher's logits (B,K), over its temperature, with their gradient by the images (B,C,H,W)."""
    logits = batch.guide(x)
    if x.requires_grad and not logits.requires_grad:
        raise CompressError(
            "the teacher gives no gradients by its images, as an ONNX file does not, which this attack follows; "
            "choose another --method, e.g. rslad"
        )
    return logits / batch.temperature


def from_labels(student: Classifier, batch: Batch) -> Search:
    """CE(S(x'), y)."""
    return Search(student, attack_losses.cross_entropy(batch.y))


def from_teacher(student: Classifier, batch: Batch) -> Search:
    """KL(T(x) ‖ S(x')), T(x) fixed."""
    return Search(student, attack_losses.divergence(batch.taught.logits))


def from_itself(student: Classifier, batch: Batch) -> Search:
    """KL(S(x) ‖ S(x')), S(x) fixed. Flat at x' = x: the start must lie elsewhere."""
    with torch.no_grad():
        return Search(student, attack_losses.divergence(student(batch.x)))


def from_teacher_there(student: Classifier, batch: Batch) -> Search:
    """KL(T(x') ‖ S(x')), followed through student and teacher (Huang et al. 2023, eq. 5)."""

    def both(x: Tensor) -> Tensor:
        return torch.cat([student(x), followed(batch, x)], 1)

    def loss(logits: Tensor) -> Tensor:
        mine, theirs = logits.chunk(2, 1)
        return divergences(theirs, mine)

    return Search(both, loss)
