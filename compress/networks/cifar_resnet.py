"""CIFAR ResNets of depth 6n + 2 (He et al. 2016 §4.2), shortcuts of option A: no parameters of their own."""

from torch import Tensor, nn
from torch.nn import functional

from compress.networks.base import Activation, Add, Classifier, Features, conv3x3, preprocessing


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
    """Widths 16, 32, 64 with n = (depth − 2) / 6 blocks each."""

    def __init__(self, depth: int, *, channels: int, classes: int, flags: "frozenset[str]" = frozenset()) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.preprocess = preprocessing(flags, channels)
        self.conv1 = conv3x3(channels, 16, 1)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = Activation()
        self.layer1 = _stage(16, 16, 1, blocks)
        self.layer2 = _stage(16, 32, 2, blocks)
        self.layer3 = _stage(32, 64, 2, blocks)
        self.linear = nn.Linear(64, classes)
        _init(self)

    def forward_features(self, x: Tensor) -> Features:
        stage1 = self.layer1(self.relu(self.bn1(self.conv1(self.preprocess(x)))))
        stage2 = self.layer2(stage1)
        stage3 = self.layer3(stage2)
        pooled = stage3.mean((2, 3))
        return Features(self.linear(pooled), pooled, (stage1, stage2, stage3))


def cifar_resnet(name: str, *, channels: int, classes: int, flags: "frozenset[str]") -> CifarResNet:
    """`resnetDEPTH`."""
    return CifarResNet(int(name.removeprefix("resnet")), channels=channels, classes=classes, flags=flags)


def _stage(inputs: int, outputs: int, stride: int, blocks: int) -> nn.Sequential:
    first = CifarResNetBlock(inputs, outputs, stride)
    return nn.Sequential(first, *(CifarResNetBlock(outputs, outputs, 1) for _ in range(blocks - 1)))


def _init(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.01)
            nn.init.zeros_(module.bias)
