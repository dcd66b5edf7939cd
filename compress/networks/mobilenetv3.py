"""MobileNetV3 small and large (Howard et al. 2019) for images around 224×224.

Parameter names are torchvision's, so that its weights load. Dropout is left out: it would draw from a stream that a
resumed run does not share.
"""

from torch import Tensor, nn

from compress.networks.base import Activation, Add, Classifier, Features, initialise_weights, preprocessing
from compress.networks.mobilenetv2 import rounded_width

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
    """Stem of stride 2, blocks, 1×1 convolution to six times their width, and a head with one hidden layer."""

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
