"""MobileNet-V2 for small images, with a width multiplier; MobileNetV3 small and large for images around 224×224."""

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
    """Seventeen blocks between a 3×3 stem and a 1×1 convolution to 1280 channels (more above multiplier 1).

    Sandler et al. 2018, as robust-distillation code has it: stem and second stage keep the resolution, plain ReLU, a
    1×1 shortcut where a block of stride 1 changes its width.
    """

    def __init__(self, name: str, *, channels: int, classes: int, flags: "frozenset[str]") -> None:
        """`name` is `mobilenetv2`, of multiplier 1, or `mobilenetv2-MULTIPLIER`."""
        super().__init__()
        multiplier = float(name.partition("-")[2] or 1)
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


#: Kernel, expanded channels, output channels, squeeze-and-excitation, hard-swish, stride of each block.
Row = tuple[int, int, int, bool, bool, int]
LARGE: tuple[Row, ...] = (
    (3, 16, 16, False, False, 1),
    (3, 64, 24, False, False, 2),
    (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2),
    (5, 120, 40, True, False, 1),
    (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2),
    (3, 200, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1),
    (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2),
    (5, 960, 160, True, True, 1),
    (5, 960, 160, True, True, 1),
)
SMALL: tuple[Row, ...] = (
    (3, 16, 16, True, False, 2),
    (3, 72, 24, False, False, 2),
    (3, 88, 24, False, False, 1),
    (5, 96, 40, True, True, 2),
    (5, 240, 40, True, True, 1),
    (5, 240, 40, True, True, 1),
    (5, 120, 48, True, True, 1),
    (5, 144, 48, True, True, 1),
    (5, 288, 96, True, True, 2),
    (5, 576, 96, True, True, 1),
    (5, 576, 96, True, True, 1),
)
VARIANTS = {"mobilenetv3-small": (SMALL, 1024), "mobilenetv3-large": (LARGE, 1280)}


def _conv(inputs: int, outputs: int, kernel: int, stride: int, act: "nn.Module | None", groups: int = 1) -> nn.Module:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    norm = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01)
    return nn.Sequential(conv, norm) if act is None else nn.Sequential(conv, norm, act)


class SqueezeExcitation(nn.Module):
    """Each channel times a gate in [0, 1] that is computed from all channels' means."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.activation = Activation()
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.gate = nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.fc2(self.activation(self.fc1(x.mean((2, 3), keepdim=True)))))


class MobileNetV3Block(nn.Module):
    """1×1 expansion where the width changes, depthwise, gate, 1×1 projection."""

    def __init__(self, inputs: int, row: Row) -> None:
        super().__init__()
        kernel, width, outputs, gated, hard_swish, stride = row

        def act() -> nn.Module:
            return nn.Hardswish() if hard_swish else Activation()

        parts = [] if width == inputs else [_conv(inputs, width, 1, 1, act())]
        parts.append(_conv(width, width, kernel, stride, act(), groups=width))
        if gated:
            parts.append(SqueezeExcitation(width, rounded_width(width // 4)))
        self.block = nn.Sequential(*parts, _conv(width, outputs, 1, 1, None))
        self.add = Add() if stride == 1 and inputs == outputs else None

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.block(x)
        return out if self.add is None else self.add(x, out)


class MobileNetV3(Classifier):
    """Stem of stride 2, blocks, 1×1 convolution to six times their width, and a head with one hidden layer.

    Howard et al. 2019. Parameter names are torchvision's, so that its weights load. Dropout is left out: it would draw
    from a stream that a resumed run does not share.
    """

    def __init__(self, name: str, *, channels: int, classes: int, flags: "frozenset[str]") -> None:
        super().__init__()
        rows, hidden = VARIANTS[name]
        inputs = [16, *(row[2] for row in rows)]
        self.preprocess = preprocessing(flags, channels)
        self.features = nn.Sequential(
            _conv(channels, 16, 3, 2, nn.Hardswish()),
            *(MobileNetV3Block(before, row) for before, row in zip(inputs, rows, strict=False)),
            _conv(inputs[-1], 6 * inputs[-1], 1, 1, nn.Hardswish()),
        )
        self.ends = [number for number, row in enumerate(rows) if row[5] == 2]  # the block before each halving
        head = [nn.Linear(6 * inputs[-1], hidden), nn.Hardswish(), nn.Identity(), nn.Linear(hidden, classes)]
        self.classifier = nn.Sequential(*head)
        initialise_weights(self)

    def forward_features(self, x: Tensor) -> Features:
        out, stages = self.preprocess(x), []
        for number, part in enumerate(self.features):
            out = part(out)
            if number in self.ends:
                stages.append(out)
        pooled = self.classifier[1](self.classifier[0](out.mean((2, 3))))
        return Features(self.classifier[3](pooled), pooled, (*stages, out))
