"""WideResNets of depth 6n + 4 (Zagoruyko & Komodakis 2016), with the parameter names of the TRADES code.

One class for the variants that published robust models use: an unused first group beside the used one, other
activations, TensorFlow's padding, a cosine head, and stages of unequal depth and width.
"""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional

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

#: Blocks and channels of each stage where they are not 6n + 4 and 16·2^i·w.
UNEQUAL = {
    "wrn-34-r": ((5, 5, 5), (320, 640, 512)),  # Huang et al. 2021
    "wrn-a4": ((27, 28, 13), (160, 448, 384)),  # Huang et al. 2022
}


class WideBlock(nn.Module):
    """BatchNorm and activation before each 3×3 convolution; a 1×1 shortcut where the width changes."""

    def __init__(self, inputs: int, outputs: int, stride: int, act: Callable[[], nn.Module], same: bool) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.relu1 = act()
        self.pad = padding(stride, same=same)
        self.conv1 = conv3x3(inputs, outputs, stride, same=same)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu2 = act()
        self.conv2 = conv3x3(outputs, outputs, 1)
        self.add = Add()
        self.convShortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        active = self.relu1(self.bn1(x))
        shortcut = x if self.convShortcut is None else self.convShortcut(active)
        return self.add(self.conv2(self.relu2(self.bn2(self.conv1(self.pad(active))))), shortcut)


class WideGroup(nn.Module):
    """Blocks of one width, under the name `layer` that published checkpoints use."""

    def __init__(
        self, inputs: int, outputs: int, stride: int, blocks: int, act: Callable[[], nn.Module], same: bool = False
    ) -> None:
        super().__init__()
        first = WideBlock(inputs, outputs, stride, act, same)
        self.layer = nn.Sequential(first, *(WideBlock(outputs, outputs, 1, act, same) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out


class CosineHead(nn.Linear):
    """Logits are cosines between the features and each class's weights."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(functional.normalize(x, dim=1), functional.normalize(self.weight, dim=1))


class WideResNet(Classifier):
    """Three groups at full, half and quarter resolution, behind one 3×3 convolution to 16 channels."""

    def __init__(self, name: str, *, channels: int, classes: int, flags: "frozenset[str]") -> None:
        """`name` is `wrn-DEPTH-WIDTH`, or one of `UNEQUAL`."""
        super().__init__()
        if name in UNEQUAL:
            blocks, widths = UNEQUAL[name]
        else:
            depth, width = (int(number) for number in name.split("-")[1:])
            blocks, widths = ((depth - 4) // 6,) * 3, (16 * width, 32 * width, 64 * width)
        act, same = activation(flags), "same" in flags
        self.preprocess = preprocessing(flags, channels)
        self.conv1 = conv3x3(channels, 16, 1)
        self.block1 = WideGroup(16, widths[0], 1, blocks[0], act, same)
        if "sub_block1" in flags:
            self.sub_block1 = WideGroup(16, widths[0], 1, blocks[0], act)
        self.block2 = WideGroup(widths[0], widths[1], 2, blocks[1], act, same)
        self.block3 = WideGroup(widths[1], widths[2], 2, blocks[2], act, same)
        self.bn1 = nn.BatchNorm2d(widths[2])
        self.relu = act()
        self.fc = CosineHead(widths[2], classes, bias=False) if "cosine" in flags else nn.Linear(widths[2], classes)
        initialise_weights(self)

    def forward_features(self, x: Tensor) -> Features:
        stage1 = self.block1(self.conv1(self.preprocess(x)))
        stage2 = self.block2(stage1)
        stage3 = self.relu(self.bn1(self.block3(stage2)))
        pooled = stage3.mean((2, 3))
        return Features(self.fc(pooled), pooled, (stage1, stage2, stage3))
