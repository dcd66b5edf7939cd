"""A small plain convolutional network: four 3×3 convolutions with BatchNorm, no shortcuts."""

from torch import Tensor, nn

from compress.networks.base import Activation, Classifier, Features, conv3x3, initialise_weights, preprocessing

#: Channels and stride of each convolution.
LAYERS = ((32, 1), (64, 2), (64, 1), (128, 2))


class CNN(Classifier):
    """32, 64, 64 and 128 channels, pooled over the whole image."""

    def __init__(
        self, name: str = "cnn", *, channels: int, classes: int, flags: "frozenset[str]" = frozenset()
    ) -> None:
        super().__init__()
        self.preprocess = preprocessing(flags, channels)
        inputs, stages = channels, []
        for width, stride in LAYERS:
            stages.append(nn.Sequential(conv3x3(inputs, width, stride), nn.BatchNorm2d(width), Activation()))
            inputs = width
        self.layers = nn.ModuleList(stages)
        self.linear = nn.Linear(inputs, classes)
        initialise_weights(self)

    def forward_features(self, x: Tensor) -> Features:
        out, stages = self.preprocess(x), []
        for layer in self.layers:
            out = layer(out)
            stages.append(out)
        pooled = out.mean((2, 3))
        return Features(self.linear(pooled), pooled, tuple(stages))
