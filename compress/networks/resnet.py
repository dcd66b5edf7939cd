"""ResNet-18, 34, 50, … and PreActResNet-18, 34 for small images: 64 to 512 channels, 3×3 stem, no max-pooling.

ResNets have the layout that robust CIFAR models share (`conv1, bn1, layer1…4, linear`, shortcuts `shortcut.0/1`). Of
PreActResNets (He et al. 2016b: BatchNorm and activation before each convolution) published robust models disagree on
details that their weights do not show: whether the shortcut takes the block's input or its activation, which padding,
which kernel. Each is a variant. +raw: shortcuts take the block's input, not its activation; +final-bn: BatchNorm and
activation before pooling; +same: TensorFlow's padding, and 3×3 shortcuts with it (the DeepMind models).
"""

from collections.abc import Callable, Iterator, Sequence

from torch import Tensor, nn

from compress.networks.base import (
    Activation,
    Add,
    Classifier,
    Features,
    activation,
    conv3x3,
    initialise_weights,
    padding,
    preprocessing,
)

#: Blocks of each stage, and whether they are bottlenecks.
DEPTHS = {
    "resnet18": ((2, 2, 2, 2), False),
    "resnet34": ((3, 4, 6, 3), False),
    "resnet50": ((3, 4, 6, 3), True),
    "resnet101": ((3, 4, 23, 3), True),
    "resnet152": ((3, 8, 36, 3), True),
}
PREACT_DEPTHS = {"preactresnet18": (2, 2, 2, 2), "preactresnet34": (3, 4, 6, 3)}


def _four_stages(
    block: Callable[[int, int, int], nn.Module], depths: Sequence[int], expansion: int = 1
) -> Iterator[nn.Sequential]:
    """Stages of `block(inputs, width, stride)`, widths 64 to 512; what comes out is `expansion` times as wide."""
    inputs = 64
    for depth, width in zip(depths, (64, 128, 256, 512), strict=True):
        first = block(inputs, width, 1 if width == 64 else 2)
        inputs = expansion * width
        yield nn.Sequential(first, *(block(inputs, width, 1) for _ in range(depth - 1)))


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
        expansion = 4 if bottleneck else 1
        self.preprocess = preprocessing(flags, channels)
        self.conv1 = conv3x3(channels, 64, 1)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = Activation()
        stages = _four_stages(Bottleneck if bottleneck else BasicBlock, depths, expansion)
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.linear = nn.Linear(512 * expansion, classes)
        initialise_weights(self)

    def forward_features(self, x: Tensor) -> Features:
        stage1 = self.layer1(self.relu(self.bn1(self.conv1(self.preprocess(x)))))
        stage2 = self.layer2(stage1)
        stage3 = self.layer3(stage2)
        stage4 = self.layer4(stage3)
        pooled = stage4.mean((2, 3))
        return Features(self.linear(pooled), pooled, (stage1, stage2, stage3, stage4))


class PreActBlock(nn.Module):
    """Two 3×3 convolutions, each behind BatchNorm and activation."""

    def __init__(
        self, inputs: int, width: int, stride: int, act: Callable[[], nn.Module], flags: "frozenset[str]"
    ) -> None:
        super().__init__()
        same = "same" in flags
        self.raw = "raw" in flags
        self.bn1 = nn.BatchNorm2d(inputs)
        self.relu1 = act()
        self.pad = padding(stride, same=same)
        self.conv1 = conv3x3(inputs, width, stride, same=same)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = act()
        self.conv2 = conv3x3(width, width, 1)
        self.add = Add()
        self.shortcut_pad = padding(stride, same=same)
        self.shortcut: nn.Conv2d | None = None
        if stride > 1 or inputs != width:
            narrow = nn.Conv2d(inputs, width, 1, stride, bias=False)
            self.shortcut = conv3x3(inputs, width, stride, same=True) if same else narrow

    def forward(self, x: Tensor) -> Tensor:
        active = self.relu1(self.bn1(x))
        shortcut = x
        if self.shortcut is not None:
            shortcut = self.shortcut(self.shortcut_pad(x if self.raw else active))
        return self.add(self.conv2(self.relu2(self.bn2(self.conv1(self.pad(active))))), shortcut)


class PreActResNet(Classifier):
    """Four stages of 64, 128, 256, 512 channels."""

    def __init__(self, name: str, *, channels: int, classes: int, flags: "frozenset[str]") -> None:
        super().__init__()
        act = activation(flags)
        self.preprocess = preprocessing(flags, channels)
        self.conv1 = conv3x3(channels, 64, 1)
        stages = _four_stages(
            lambda inputs, width, stride: PreActBlock(inputs, width, stride, act, flags), PREACT_DEPTHS[name]
        )
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.bn = nn.BatchNorm2d(512) if "final-bn" in flags else nn.Identity()
        self.relu = act() if "final-bn" in flags else nn.Identity()
        self.linear = nn.Linear(512, classes)
        initialise_weights(self)

    def forward_features(self, x: Tensor) -> Features:
        stage1 = self.layer1(self.conv1(self.preprocess(x)))
        stage2 = self.layer2(stage1)
        stage3 = self.layer3(stage2)
        stage4 = self.relu(self.bn(self.layer4(stage3)))
        pooled = stage4.mean((2, 3))
        return Features(self.linear(pooled), pooled, (stage1, stage2, stage3, stage4))
