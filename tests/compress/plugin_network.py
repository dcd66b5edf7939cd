"""The torch half of `plugin_objects`: a network of a convolution and a linear layer, one of weights by place."""

import torch
from torch import Tensor, nn

from compress.networks.base import Classifier, Features


class PooledLinear(Classifier):
    """One convolution, smooth so that a gradient by the images has a gradient itself, pooled; one linear layer."""

    def __init__(self, channels: int, classes: int, preprocess: nn.Module) -> None:
        super().__init__()
        self.preprocess = preprocess
        self.conv = nn.Conv2d(channels, 8, 3, padding=1)
        self.linear = nn.Linear(8, classes)

    def forward_features(self, x: Tensor) -> Features:
        maps = nn.functional.softplus(self.conv(self.preprocess(x)))
        pooled = maps.mean((2, 3))
        return Features(self.linear(pooled), pooled, (maps,))


class PlacedLinear(Classifier):
    """A weight for every pixel's place, and one linear layer."""

    def __init__(self, channels: int, classes: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.randn(channels, *size))
        self.linear = nn.Linear(channels, classes)

    def forward_features(self, x: Tensor) -> Features:
        maps = x * self.places
        pooled = maps.mean((2, 3))
        return Features(self.linear(pooled), pooled, (maps,))
