"""PreActResNet-18 and 34 for small images (He et al. 2016b): BatchNorm and activation before each convolution.

Published robust models disagree on details that their weights do not show: whether the shortcut takes the block's
input or its activation, which padding, which kernel. Each is a variant.
"""

from collections.abc import Callable

from torch import Tensor, nn

from compress.networks.base import (
    Add,
    Classifier,
    Features,
    activation,
    conv3x3,
    initialise_weights,
    padding,
    preprocessing,
)

#: +raw: shortcuts take the block's input, not its activation; +final-bn: BatchNorm and activation before pooling;
#: +same: TensorFlow's padding, and 3×3 shortcuts with it (the DeepMind models)
DEPTHS = {"preactresnet18": (2, 2, 2, 2), "preactresnet34": (3, 4, 6, 3)}


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
        self.layer1: nn.Sequential
        self.layer2: nn.Sequential
        self.layer3: nn.Sequential
        self.layer4: nn.Sequential
        self.preprocess = preprocessing(flags, channels)
        self.conv1 = conv3x3(channels, 64, 1)
        inputs = 64
        for number, depth in enumerate(DEPTHS[name]):
            width, stride = 64 * 2**number, 1 if number == 0 else 2
            rest = (PreActBlock(width, width, 1, act, flags) for _ in range(depth - 1))
            setattr(self, f"layer{number + 1}", nn.Sequential(PreActBlock(inputs, width, stride, act, flags), *rest))
            inputs = width
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
