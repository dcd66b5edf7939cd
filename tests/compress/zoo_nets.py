"""Published code's networks under their own parameter names, written here as plainly as possible: the oracle.

Nothing of `compress.networks` is used: what these compute is what an imported network must compute.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, padding: "int | None" = None) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2 if padding is None else padding, bias=False)


def pooled(x: Tensor) -> Tensor:
    return x.mean((2, 3))


def unit(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=1, keepdim=True)


class TradesBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), conv(inputs, outputs, stride=stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(outputs), conv(outputs, outputs)
        if inputs != outputs:
            self.convShortcut = conv(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(x))
        if hasattr(self, "convShortcut"):
            x = self.convShortcut(out)
        return x + self.conv2(F.relu(self.bn2(self.conv1(out))))


class Layers(nn.Module):
    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.layer = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class TradesWRN(nn.Module):
    """WRN-10-1 as in the TRADES code, with the group it never uses, or with constants of normalisation."""

    def __init__(self, classes: int = 10, sub_block1: bool = False, normalize: bool = False) -> None:
        super().__init__()
        self.conv1 = conv(3, 16)
        self.block1 = Layers(TradesBlock(16, 16, 1))
        if sub_block1:
            self.sub_block1 = Layers(TradesBlock(16, 16, 1))
        self.block2 = Layers(TradesBlock(16, 32, 2))
        self.block3 = Layers(TradesBlock(32, 64, 2))
        self.bn1, self.fc = nn.BatchNorm2d(64), nn.Linear(64, classes)
        if normalize:
            self.register_buffer("mu", torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1))
            self.register_buffer("sigma", torch.tensor([0.2, 0.3, 0.25]).view(1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        if hasattr(self, "mu"):
            x = (x - self.mu) / self.sigma
        out = self.block3(self.block2(self.block1(self.conv1(x))))
        return self.fc(pooled(F.relu(self.bn1(out))))


class CosineWRN(TradesWRN):
    """Features and the head's weights at length 1."""

    def __init__(self) -> None:
        super().__init__(sub_block1=True, normalize=True)
        self.fc = nn.Linear(64, 10, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out = self.block3(self.block2(self.block1(self.conv1((x - self.mu) / self.sigma))))
        features = pooled(F.relu(self.bn1(out)))
        return unit(features) @ unit(self.fc.weight).T


class DeepMindBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.act, self.stride = act, stride
        self.batchnorm_0, self.conv_0 = nn.BatchNorm2d(inputs), conv(inputs, outputs, 3, stride, 0)
        self.batchnorm_1, self.conv_1 = nn.BatchNorm2d(outputs), conv(outputs, outputs)
        if inputs != outputs:
            self.shortcut = conv(inputs, outputs, 1, stride, 0)

    def forward(self, x: Tensor) -> Tensor:
        out = self.act(self.batchnorm_0(x))
        if hasattr(self, "shortcut"):
            x = self.shortcut(out)
        out = self.conv_0(F.pad(out, (1, 1, 1, 1) if self.stride == 1 else (0, 1, 0, 1)))
        return x + self.conv_1(self.act(self.batchnorm_1(out)))


class Blocks(nn.Module):
    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.block = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


CIFAR10 = (torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2471, 0.2435, 0.2616]))


def normalized(x: Tensor) -> Tensor:
    mean, std = (v.view(1, 3, 1, 1) for v in CIFAR10)
    return (x - mean) / std


class DeepMindWRN(nn.Module):
    """WRN-10-1 as DeepMind's code has it: constants of normalisation in the code, not among the weights."""

    def __init__(self, act: Callable[[Tensor], Tensor] = F.silu) -> None:
        super().__init__()
        self.act, self.init_conv = act, conv(3, 16)
        groups = ((16, 16, 1), (16, 32, 2), (32, 64, 2))
        self.layer = nn.Sequential(*(Blocks(DeepMindBlock(i, o, s, act)) for i, o, s in groups))
        self.batchnorm, self.logits = nn.BatchNorm2d(64), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(pooled(self.act(self.batchnorm(self.layer(self.init_conv(normalized(x)))))))


class DeepMindPreActBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.batchnorm_0, self.conv_2d_1 = nn.BatchNorm2d(inputs), conv(inputs, outputs, 3, stride, 0)
        self.batchnorm_1, self.conv_2d_2 = nn.BatchNorm2d(outputs), conv(outputs, outputs)
        if stride != 1 or inputs != outputs:
            self.shortcut = conv(inputs, outputs, 3, stride, 0)

    def forward(self, x: Tensor) -> Tensor:
        pad = (1, 1, 1, 1) if self.stride == 1 else (0, 1, 0, 1)
        out = self.conv_2d_1(F.pad(F.silu(self.batchnorm_0(x)), pad))
        out = self.conv_2d_2(F.silu(self.batchnorm_1(out)))
        return out + (self.shortcut(F.pad(x, pad)) if hasattr(self, "shortcut") else x)


class DeepMindPreAct18(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv_2d = conv(3, 64)
        for number, (inputs, outputs, stride) in enumerate(STAGES):
            blocks = (DeepMindPreActBlock(inputs, outputs, stride), DeepMindPreActBlock(outputs, outputs, 1))
            setattr(self, f"layer_{number}", nn.Sequential(*blocks))
        self.batchnorm, self.logits = nn.BatchNorm2d(512), nn.Linear(512, 10)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv_2d(normalized(x))
        for number in range(4):
            out = getattr(self, f"layer_{number}")(out)
        return self.logits(pooled(F.silu(self.batchnorm(out))))


STAGES = ((64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2))


class PreActBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, raw: bool) -> None:
        super().__init__()
        self.raw = raw
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), conv(inputs, outputs, stride=stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(outputs), conv(outputs, outputs)
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(conv(inputs, outputs, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(x))
        shortcut = self.shortcut(x if self.raw else out) if hasattr(self, "shortcut") else x
        return shortcut + self.conv2(F.relu(self.bn2(self.conv1(out))))


class PreAct18(nn.Module):
    def __init__(self, raw: bool = True, final_bn: bool = False) -> None:
        super().__init__()
        self.conv1 = conv(3, 64)
        for number, (inputs, outputs, stride) in enumerate(STAGES, 1):
            blocks = (PreActBlock(inputs, outputs, stride, raw), PreActBlock(outputs, outputs, 1, raw))
            setattr(self, f"layer{number}", nn.Sequential(*blocks))
        if final_bn:
            self.bn = nn.BatchNorm2d(512)
        self.linear = nn.Linear(512, 10)

    def forward(self, x: Tensor) -> Tensor:
        out = self.layer4(self.layer3(self.layer2(self.layer1(self.conv1(x)))))
        return self.linear(pooled(F.relu(self.bn(out)) if hasattr(self, "bn") else out))


class BasicBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.name = shortcut
        self.conv1, self.bn1 = conv(inputs, outputs, stride=stride), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = conv(outputs, outputs), nn.BatchNorm2d(outputs)
        around = stride != 1 or inputs != outputs
        setattr(
            self,
            shortcut,
            nn.Sequential(conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs)) if around else nn.Sequential(),
        )

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(out + getattr(self, self.name)(x))


class ResNet18(nn.Module):
    """With the names of CIFAR code (shortcut, linear), or of torchvision (downsample, fc)."""

    def __init__(self, shortcut: str = "shortcut", head: str = "linear") -> None:
        super().__init__()
        self.head = head
        self.conv1, self.bn1 = conv(3, 64), nn.BatchNorm2d(64)
        for number, (inputs, outputs, stride) in enumerate(STAGES, 1):
            blocks = (BasicBlock(inputs, outputs, stride, shortcut), BasicBlock(outputs, outputs, 1, shortcut))
            setattr(self, f"layer{number}", nn.Sequential(*blocks))
        setattr(self, head, nn.Linear(512, 10))

    def forward(self, x: Tensor) -> Tensor:
        out = self.layer4(self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x)))))))
        return getattr(self, self.head)(pooled(out))


class OptionABlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride, self.wider = stride, outputs - inputs
        self.conv1, self.bn1 = conv(inputs, outputs, stride=stride), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = conv(outputs, outputs), nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.wider:
            zeros = x.new_zeros(len(x), self.wider // 2, out.shape[2], out.shape[3])
            x = torch.cat([zeros, x[:, :, :: self.stride, :: self.stride], zeros], 1)
        return F.relu(out + x)


class ResNet20(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(3, 16), nn.BatchNorm2d(16)
        for number, (inputs, outputs, stride) in enumerate(((16, 16, 1), (16, 32, 2), (32, 64, 2)), 1):
            rest = (OptionABlock(outputs, outputs, 1) for _ in range(2))
            setattr(self, f"layer{number}", nn.Sequential(OptionABlock(inputs, outputs, stride), *rest))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(pooled(self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))))


class InvertedResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        width, self.stride = expansion * inputs, stride
        self.conv1, self.bn1 = conv(inputs, width, 1), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, groups=width, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3, self.bn3 = conv(width, outputs, 1), nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride == 1 and inputs != outputs:
            self.shortcut = nn.Sequential(conv(inputs, outputs, 1), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        out = self.bn3(self.conv3(out))
        return out + self.shortcut(x) if self.stride == 1 else out


class MobileNetV2(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(3, 32), nn.BatchNorm2d(32)
        blocks, inputs = [], 32
        for expansion, outputs, count, stride in (
            (1, 16, 1, 1),
            (6, 24, 2, 1),
            (6, 32, 3, 2),
            (6, 64, 4, 2),
            (6, 96, 3, 1),
            (6, 160, 3, 2),
            (6, 320, 1, 1),
        ):
            for number in range(count):
                blocks.append(InvertedResidual(inputs, outputs, expansion, stride if number == 0 else 1))
                inputs = outputs
        self.layers = nn.Sequential(*blocks)
        self.conv2, self.bn2 = conv(320, 1280, 1), nn.BatchNorm2d(1280)
        self.linear = nn.Linear(1280, 10)

    def forward(self, x: Tensor) -> Tensor:
        out = self.layers(F.relu(self.bn1(self.conv1(x))))
        return self.linear(pooled(F.relu(self.bn2(self.conv2(out)))))


class StemWRN(nn.Module):
    """WRN-34-R: stages of unequal width under `stem_conv` and `blocks`."""

    def __init__(self) -> None:
        super().__init__()
        widths = (16, 320, 640, 512)
        self.stem_conv = conv(3, 16)
        self.blocks = nn.ModuleList(
            Layers(
                TradesBlock(widths[i], widths[i + 1], 1 if i == 0 else 2),
                *(TradesBlock(widths[i + 1], widths[i + 1], 1) for _ in range(4)),
            )
            for i in range(3)
        )
        self.bn1, self.fc = nn.BatchNorm2d(512), nn.Linear(512, 10)

    def forward(self, x: Tensor) -> Tensor:
        out = self.stem_conv(x)
        for block in self.blocks:
            out = block(out)
        return self.fc(pooled(F.relu(self.bn1(out))))


class LearnedActivation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.beta, self.alpha = nn.Parameter(torch.tensor([0.1])), nn.Parameter(torch.tensor([1.3]))

    def forward(self, x: Tensor) -> Tensor:
        return x * (torch.sigmoid(self.alpha.abs() * x) - self.beta.abs()) / (1 - self.beta.abs())


class LearnedBlock(TradesBlock):
    def __init__(self, activation: nn.Module, inputs: int, outputs: int, stride: int) -> None:
        super().__init__(inputs, outputs, stride)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        out = self.activation(self.bn1(x))
        if hasattr(self, "convShortcut"):
            x = self.convShortcut(out)
        return x + self.conv2(self.activation(self.bn2(self.conv1(out))))


class LearnedWRN(nn.Module):
    """WRN-10-1 whose one activation, shared by all places, is learned."""

    def __init__(self) -> None:
        super().__init__()
        act = LearnedActivation()
        self.conv1, self.activation = conv(3, 16), act
        self.block1 = Layers(LearnedBlock(act, 16, 16, 1))
        self.block2 = Layers(LearnedBlock(act, 16, 32, 2))
        self.block3 = Layers(LearnedBlock(act, 32, 64, 2))
        self.bn1, self.fc = nn.BatchNorm2d(64), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        out = self.block3(self.block2(self.block1(self.conv1(x))))
        return self.fc(pooled(self.activation(self.bn1(out))))


def randomised(net: nn.Module, seed: int = 0) -> nn.Module:
    """BatchNorm statistics and scales at which a mixed-up layer shows."""
    draw = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for name, low, high in (("running_mean", -0.2, 0.2), ("running_var", 0.5, 1.5), ("weight", 0.5, 1.2)):
                tensor = getattr(module, name).data
                tensor.copy_(torch.rand(tensor.shape, generator=draw) * (high - low) + low)
    return net.eval()
