"""ConvNeXt (Liu et al. 2022) at the sizes that timm added for small devices, with a stem for small images.

Chosen over EfficientNet: from 28 M parameters on it has the best published robust accuracy of convolutional networks
on ImageNet (Singh, Croce & Hein 2023; of the sizes here nothing is published). It has no BatchNorm, so nothing depends
on whether a batch is clean or adversarial, and no gates, whose products would have to be quantized; nine of ten of its
multiplications are in 1×1 convolutions, which every runtime has in INT8.
"""

import torch
from torch import Tensor, nn

from compress.networks.base import Add, Classifier, Features, preprocessing
from compress.networks.vit import DEVIATION, EPS, EXPANSION
from edge.core.errors import CompressError

#: Blocks and channels of each stage, by the name behind `convnext-`; `yocto` is for images of digits' size.
STAGES = {
    "yocto": ((1, 1, 2, 1), (16, 32, 64, 128)),
    "atto": ((2, 2, 6, 2), (40, 80, 160, 320)),
    "femto": ((2, 2, 6, 2), (48, 96, 192, 384)),
    "pico": ((2, 2, 6, 2), (64, 128, 256, 512)),
}
SCALE = 1e-6  # of fresh layer scales


class LayerNorm2d(nn.LayerNorm):
    """Over the channels of each pixel of (B,C,H,W)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvMlp(nn.Module):
    """Two 1×1 convolutions with GELU between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(width, EXPANSION * width, 1)
        self.act = nn.GELU()
        self.fc2 = nn.Conv2d(EXPANSION * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        narrow: Tensor = self.fc2(self.act(self.fc1(x)))
        return narrow


class ConvNeXtBlock(nn.Module):
    """x + γ · MLP(LayerNorm(depthwise 7×7 of x)), γ learned for each channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(width, width, 7, 1, 3, groups=width)
        self.norm = LayerNorm2d(width, EPS)
        self.mlp = ConvMlp(width)
        self.gamma = nn.Parameter(torch.full((width,), SCALE))
        self.add = Add()

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = self.add(self.mlp(self.norm(self.conv_dw(x))) * self.gamma.reshape(1, -1, 1, 1), x)
        return added


class ConvNeXtStage(nn.Module):
    """A halving, but for the first stage, and the blocks of one resolution."""

    def __init__(self, inputs: int, width: int, depth: int) -> None:
        super().__init__()
        halving = (LayerNorm2d(inputs, EPS), nn.Conv2d(inputs, width, 2, 2))
        self.downsample = nn.Sequential(*halving) if inputs != width else nn.Identity()
        self.blocks = nn.Sequential(*(ConvNeXtBlock(width) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.blocks(self.downsample(x))
        return out


class ConvNeXtHead(nn.Module):
    """Mean over the pixels, LayerNorm, linear."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, EPS)
        self.fc = nn.Linear(width, classes)


class ConvNeXt(Classifier):
    """A stem of square patches, four stages of blocks, each at half the resolution of the one before.

    Parameter names are timm's, so that the weights of its `convnext_atto`, `convnext_femto` and `convnext_pico` load.
    Stochastic depth is left out.
    """

    def __init__(
        self,
        name: str,
        *,
        channels: int,
        classes: int,
        flags: "frozenset[str]" = frozenset(),
        size: "tuple[int, int] | None" = None,
    ) -> None:
        """`name` is `convnext-SHAPE-PATCH`, PATCH the side and stride of the stem; images of `size` must not vanish."""
        super().__init__()
        _, shape, text = name.split("-")
        patch = int(text)
        if size is not None and min(size) < 8 * patch:
            fits = f"convnext-{shape}-{min(size) // 8}, or " if min(size) >= 8 else ""
            raise CompressError(
                f"{name}: images of {size[0]}×{size[1]} are too small for four stages behind patches of {patch}; take "
                f"{fits}images of at least {8 * patch}×{8 * patch}"
            )
        depths, widths = STAGES[shape]
        self.preprocess = preprocessing(flags, channels)
        self.stem = nn.Sequential(nn.Conv2d(channels, widths[0], patch, patch), LayerNorm2d(widths[0], EPS))
        inputs = (widths[0], *widths)
        self.stages = nn.Sequential(*map(ConvNeXtStage, inputs, widths, depths))
        self.head = ConvNeXtHead(widths[-1], classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=DEVIATION)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward_features(self, x: Tensor) -> Features:
        stages = [self.stem(self.preprocess(x))]
        for stage in self.stages:
            stages.append(stage(stages[-1]))
        pooled = self.head.norm(stages[-1].mean((2, 3)))
        return Features(self.head.fc(pooled), pooled, tuple(stages[1:]))
