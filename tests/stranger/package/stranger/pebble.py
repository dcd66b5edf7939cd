"""A network of two convolutions for tiny images; its width is part of its name."""

from torch import Tensor, nn

from compress.networks.base import Activation, Classifier, Features, conv3x3, initialise_weights, preprocessing


class Pebble(Classifier):
    """`width` and 2 · `width` channels, pooled over the whole image."""

    def __init__(self, width: int, *, channels: int, classes: int, flags: frozenset[str]) -> None:
        super().__init__()
        self.preprocess = preprocessing(flags, channels)
        self.first = nn.Sequential(conv3x3(channels, width, 1), nn.BatchNorm2d(width), Activation())
        self.second = nn.Sequential(conv3x3(width, 2 * width, 2), nn.BatchNorm2d(2 * width), Activation())
        self.linear = nn.Linear(2 * width, classes)
        initialise_weights(self)

    def forward_features(self, x: Tensor) -> Features:
        first = self.first(self.preprocess(x))
        second = self.second(first)
        pooled = second.mean((2, 3))
        return Features(self.linear(pooled), pooled, (first, second))


def build_pebble(name: str, *, channels: int, classes: int, flags: frozenset[str]) -> Pebble:
    """`pebble-WIDTH`, freshly initialised."""
    return Pebble(int(name.removeprefix("pebble-")), channels=channels, classes=classes, flags=flags)
