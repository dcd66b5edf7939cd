"""WideResNets of depth 6n + 4 (Zagoruyko & Komodakis 2016), with the parameter names of the TRADES code."""

from torch import Tensor, nn

from compress.models.base import Activation, Add, Classifier, Features


class Block(nn.Module):
    """BatchNorm and ReLU before each 3×3 convolution; a 1×1 shortcut where the width changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.relu1 = Activation()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu2 = Activation()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.add = Add()
        self.convShortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        active = self.relu1(self.bn1(x))
        shortcut = x if self.convShortcut is None else self.convShortcut(active)
        return self.add(self.conv2(self.relu2(self.bn2(self.conv1(active)))), shortcut)


class Group(nn.Module):
    """n blocks of one width, under the name `layer` that published checkpoints use."""

    def __init__(self, inputs: int, outputs: int, stride: int, blocks: int) -> None:
        super().__init__()
        first = Block(inputs, outputs, stride)
        self.layer = nn.Sequential(first, *(Block(outputs, outputs, 1) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out


class WideResNet(Classifier):
    """Widths 16·w, 32·w, 64·w with n = (depth − 4) / 6 blocks each; input used as it is, without normalisation."""

    def __init__(self, depth: int, width: int, *, channels: int, classes: int) -> None:
        super().__init__()
        blocks = (depth - 4) // 6
        self.conv1 = nn.Conv2d(channels, 16, 3, 1, 1, bias=False)
        self.block1 = Group(16, 16 * width, 1, blocks)
        self.block2 = Group(16 * width, 32 * width, 2, blocks)
        self.block3 = Group(32 * width, 64 * width, 2, blocks)
        self.bn1 = nn.BatchNorm2d(64 * width)
        self.relu = Activation()
        self.fc = nn.Linear(64 * width, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.fc.bias)

    def forward_features(self, x: Tensor) -> Features:
        stage1 = self.block1(self.conv1(x))
        stage2 = self.block2(stage1)
        stage3 = self.relu(self.bn1(self.block3(stage2)))
        pooled = stage3.mean((2, 3))
        return Features(self.fc(pooled), pooled, (stage1, stage2, stage3))
