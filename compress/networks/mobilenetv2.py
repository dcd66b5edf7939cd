"""MobileNet-V2 for small images (Sandler et al. 2018), with a width multiplier: `mobilenetv2`, `mobilenetv2-0.5`.

As robust-distillation code has it: stem and second stage keep the resolution, plain ReLU, a 1×1 shortcut where a block
of stride 1 changes its width.
"""

from torch import Tensor, nn

from compress.networks.base import Activation, Add, Classifier, Features, initialise_weights, preprocessing

#: Expansion, channels, blocks and stride of each stage.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def rounded_width(channels: float) -> int:
    """To the nearest multiple of 8, at least 8 and never more than a tenth below."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


class InvertedResidual(nn.Module):
    """1×1 expansion, 3×3 depthwise, 1×1 projection without activation."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        width = expansion * inputs
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = Activation()
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, groups=width, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = Activation()
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        self.add = Add() if stride == 1 else None
        if stride == 1 and inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        wide = self.relu2(self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x))))))
        narrow: Tensor = self.bn3(self.conv3(wide))
        return narrow if self.add is None else self.add(narrow, self.shortcut(x))


class MobileNetV2(Classifier):
    """Seventeen blocks between a 3×3 stem and a 1×1 convolution to 1280 channels (more above multiplier 1)."""

    def __init__(self, multiplier: float, *, channels: int, classes: int, flags: "frozenset[str]") -> None:
        super().__init__()
        stem, last = rounded_width(32 * multiplier), rounded_width(1280 * max(1.0, multiplier))
        self.preprocess = preprocessing(flags, channels)
        self.conv1 = nn.Conv2d(channels, stem, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu1 = Activation()
        blocks: list[nn.Module] = []
        self.ends: list[int] = []  # index of the last block of each resolution
        inputs = stem
        for expansion, width, count, stride in STAGES:
            if stride == 2:
                self.ends.append(len(blocks) - 1)
            outputs = rounded_width(width * multiplier)
            for number in range(count):
                blocks.append(InvertedResidual(inputs, outputs, expansion, stride if number == 0 else 1))
                inputs = outputs
        self.layers = nn.Sequential(*blocks)
        self.conv2 = nn.Conv2d(inputs, last, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(last)
        self.relu2 = Activation()
        self.linear = nn.Linear(last, classes)
        initialise_weights(self)

    def forward_features(self, x: Tensor) -> Features:
        out, stages = self.relu1(self.bn1(self.conv1(self.preprocess(x)))), []
        for number, block in enumerate(self.layers):
            out = block(out)
            if number in self.ends:
                stages.append(out)
        out = self.relu2(self.bn2(self.conv2(out)))
        pooled = out.mean((2, 3))
        return Features(self.linear(pooled), pooled, (*stages, out))


def mobilenet_v2(name: str, *, channels: int, classes: int, flags: "frozenset[str]") -> MobileNetV2:
    """`mobilenetv2`, of width 1, or `mobilenetv2-WIDTH`."""
    _, _, multiplier = name.partition("-")
    return MobileNetV2(float(multiplier or 1), channels=channels, classes=classes, flags=flags)
