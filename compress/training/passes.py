"""Networks as the loop calls them: the passes in one precision, everything that leaves them in float32."""

from collections import deque
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from compress.networks.base import Classifier, Features
from compress.numerics import precision


class Passes(Classifier):
    """`network`, its convolutions and matrix products in `precision`; logits and pooled features come out in float32.

    So every loss is computed in float32, and weights, optimizer and BatchNorm statistics are never anything else.
    """

    def __init__(self, network: Classifier) -> None:
        super().__init__()
        self.network = network
        self.has_features = network.has_features
        self.precision = precision.FLOAT32
        #: images → features; compiled where that was asked for
        self.run: Callable[[Tensor], Features] = network.forward_features

    def forward_features(self, x: Tensor) -> Features:
        if self.precision == precision.FLOAT32:
            return self.run(x)
        with precision.autocast(self.precision, x.device):
            found = self.run(x)
        return replace(found, logits=found.logits.float(), pooled=found.pooled.float())


class Guide(Passes):
    """The teacher: frozen, and asked about clean and adversarial images more than once a step, so it remembers both."""

    def __init__(self, network: Classifier) -> None:
        super().__init__(network)
        self._seen: deque[tuple[Tensor, Features]] = deque(maxlen=2)

    def forward_features(self, x: Tensor) -> Features:
        if torch.is_grad_enabled():
            return super().forward_features(x)
        for images, features in self._seen:
            if images is x:
                return features
        features = super().forward_features(x)
        self._seen.append((x, features))
        return features

    def forget(self) -> None:
        """Give the remembered batches back."""
        self._seen.clear()
