"""Small networks for small images: CIFAR ResNets, and plain convolutions without shortcuts."""

from torch import Tensor, nn
from torch.nn import functional

from compress.networks.base import Activation, Add, Classifier, Features, conv3x3, initialise_weights, preprocessing


class CifarResNetBlock(nn.Module):
    """Two 3×3 convolutions and the shortcut around them."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(inputs, outputs, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = Activation()
        self.conv2 = conv3x3(outputs, outputs, 1)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.add = Add()
        self.relu2 = Activation()
        self.stride = stride
        self.widen = (outputs - inputs) // 2

    def forward(self, x: Tensor) -> Tensor:
        branch = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        if self.stride > 1 or self.widen:
            x = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.widen, self.widen))
        return self.relu2(self.add(branch, x))


class CifarResNet(Classifier):
    """Depth 6n + 2 (He et al. 2016 §4.2): widths 16, 32, 64, n blocks each, shortcuts of option A: no parameters."""

    def __init__(self, name: str, *, channels: int, classes: int, flags: "frozenset[str]" = frozenset()) -> None:
        """`name` is `resnetDEPTH`."""
        super().__init__()
        blocks = (int(name.removeprefix("resnet")) - 2) // 6
        self.preprocess = preprocessing(flags, channels)
        self.conv1 = conv3x3(channels, 16, 1)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = Activation()
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(
                CifarResNetBlock(inputs, width, stride), *(CifarResNetBlock(width, width, 1) for _ in range(blocks - 1))
            )
            for inputs, width, stride in ((16, 16, 1), (16, 32, 2), (32, 64, 2))
        )
        self.linear = nn.Linear(64, classes)
        initialise_weights(self)
        nn.init.normal_(self.linear.weight, 0, 0.01)

    def forward_features(self, x: Tensor) -> Features:
        stage1 = self.layer1(self.relu(self.bn1(self.conv1(self.preprocess(x)))))
        stage2 = self.layer2(stage1)
        stage3 = self.layer3(stage2)
        pooled = stage3.mean((2, 3))
        return Features(self.linear(pooled), pooled, (stage1, stage2, stage3))


class CNN(Classifier):
    """Four 3×3 convolutions with BatchNorm to 32, 64, 64 and 128 channels, pooled over the whole image."""

    def __init__(
        self, name: str = "cnn", *, channels: int, classes: int, flags: "frozenset[str]" = frozenset()
    ) -> None:
        super().__init__()
        self.preprocess = preprocessing(flags, channels)
        self.layers = nn.ModuleList(
            nn.Sequential(conv3x3(inputs, width, stride), nn.BatchNorm2d(width), Activation())
            for inputs, width, stride in ((channels, 32, 1), (32, 64, 2), (64, 64, 1), (64, 128, 2))
        )
        self.linear = nn.Linear(128, classes)
        initialise_weights(self)

    def forward_features(self, x: Tensor) -> Features:
        stages = [self.preprocess(x)]
        for layer in self.layers:
            stages.append(layer(stages[-1]))
        pooled = stages[-1].mean((2, 3))
        return Features(self.linear(pooled), pooled, tuple(stages[1:]))
