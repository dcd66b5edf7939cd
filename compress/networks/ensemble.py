"""Several networks as one that predicts the mean of their scores."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from compress.networks.base import Classifier, Features


class Ensemble(Classifier):
    """logits = log mean_k softmax(logits_k), so that their softmax is the mean of the members' scores.

    `pooled` is the members' side by side (widths add up), `stages` are the first member's.
    """

    def __init__(self, members: Sequence[Classifier]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.has_features = all(member.has_features for member in members)

    def forward_features(self, x: Tensor) -> Features:
        found = [member.forward_features(x) for member in self._members()]
        scores = torch.stack([_single(each.logits).log_softmax(1) for each in found])
        pooled = torch.cat([_single(each.pooled) for each in found], 1)
        return Features(scores.logsumexp(0) - math.log(len(found)), pooled, found[0].stages)

    def _members(self) -> list[Classifier]:
        return list(self.members)  # type: ignore[arg-type]


def _single(values: Tensor) -> Tensor:
    """In float32 at least: a mean of scores in half precision would lose the small ones."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
