"""ResNet-18, 34, 50, … for small images: 64 to 512 channels, 3×3 stem, no max-pooling.

The layout that robust CIFAR models share (`conv1, bn1, layer1…4, linear`, shortcuts `shortcut.0/1`).
"""

from collections.abc import Callable

from torch import Tensor, nn

from compress.networks.base import Activation, Add, Classifier, Features, conv3x3, initialise_weights, preprocessing

#: Blocks of each stage, and whether they are bottlenecks.
DEPTHS = {
    "resnet18": ((2, 2, 2, 2), False),
    "resnet34": ((3, 4, 6, 3), False),
    "resnet50": ((3, 4, 6, 3), True),
    "resnet101": ((3, 4, 23, 3), True),
    "resnet152": ((3, 8, 36, 3), True),
}


class _Residual(nn.Module):
    """A branch, the shortcut around it (1×1 where the shape changes), their sum, an activation."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.shortcut = nn.Sequential()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        self.add = Add()
        self.relu = Activation()

    def branch(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.add(self.branch(x), self.shortcut(x)))


class BasicBlock(_Residual):
    """Two 3×3 convolutions."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__(inputs, width, stride)
        self.conv1 = conv3x3(inputs, width, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = Activation()
        self.conv2 = conv3x3(width, width, 1)
        self.bn2 = nn.BatchNorm2d(width)

    def branch(self, x: Tensor) -> Tensor:
        return self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))


class Bottleneck(_Residual):
    """1×1, 3×3 and 1×1 convolutions, four times as wide outside as inside."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__(inputs, 4 * width, stride)
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = Activation()
        self.conv2 = conv3x3(width, width, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = Activation()
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)

    def branch(self, x: Tensor) -> Tensor:
        narrow = self.relu2(self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x))))))
        return self.bn3(self.conv3(narrow))


class ResNet(Classifier):
    """Four stages of 64, 128, 256, 512 channels (four times that with bottlenecks)."""

    def __init__(self, name: str, *, channels: int, classes: int, flags: "frozenset[str]") -> None:
        super().__init__()
        depths, bottleneck = DEPTHS[name]
        block: Callable[[int, int, int], nn.Module] = Bottleneck if bottleneck else BasicBlock
        out = 4 if bottleneck else 1
        self.layer1: nn.Sequential
        self.layer2: nn.Sequential
        self.layer3: nn.Sequential
        self.layer4: nn.Sequential
        self.preprocess = preprocessing(flags, channels)
        self.conv1 = conv3x3(channels, 64, 1)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = Activation()
        inputs = 64
        for number, depth in enumerate(depths):
            width, stride = 64 * 2**number, 1 if number == 0 else 2
            rest = (block(out * width, width, 1) for _ in range(depth - 1))
            setattr(self, f"layer{number + 1}", nn.Sequential(block(inputs, width, stride), *rest))
            inputs = out * width
        self.linear = nn.Linear(inputs, classes)
        initialise_weights(self)

    def forward_features(self, x: Tensor) -> Features:
        stage1 = self.layer1(self.relu(self.bn1(self.conv1(self.preprocess(x)))))
        stage2 = self.layer2(stage1)
        stage3 = self.layer3(stage2)
        stage4 = self.layer4(stage3)
        pooled = stage4.mean((2, 3))
        return Features(self.linear(pooled), pooled, (stage1, stage2, stage3, stage4))
