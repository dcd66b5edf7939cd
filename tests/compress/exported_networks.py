"""Classifiers of 3 × 32 × 32 images as people write them, small, each with operators of its kind when exported."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

CLASSES, WIDTH, PATCH = 10, 16, 8


class Tokens(nn.Module):
    """Patches, a class token laid out by `expand`, positions. (B,3,32,32) → (B,17,D)."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.token = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.positions = nn.Parameter(torch.randn(1, 17, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        return torch.cat([self.token.expand(x.shape[0], -1, -1), tokens], 1) + self.positions


class Block(nn.Module):
    """A mixer of tokens and a perceptron, each with its shortcut."""

    def __init__(self, mixer: nn.Module, norm: Callable[[int], nn.Module] = nn.LayerNorm) -> None:
        super().__init__()
        self.norm1, self.mixer, self.norm2 = norm(WIDTH), mixer, norm(WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mixer(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class FirstToken(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0]


class MeanToken(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


def transformer(
    mixer: nn.Module, norm: Callable[[int], nn.Module] = nn.LayerNorm, pool: type = FirstToken
) -> nn.Module:
    return nn.Sequential(Tokens(), Block(mixer, norm), pool(), norm(WIDTH), nn.Linear(WIDTH, CLASSES))


class TorchAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


class FusedAttention(nn.Module):
    """timm's: one product for all three, reshaped by the batch's own sizes; `causal` masks what follows."""

    def __init__(self, causal: bool = False) -> None:
        super().__init__()
        self.qkv, self.out, self.causal = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH), causal

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        query, key, value = self.qkv(x).reshape(batch, tokens, 3, 2, width // 2).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        return self.out(mixed.transpose(1, 2).reshape(batch, tokens, width))


class WrittenAttention(nn.Module):
    """Written out, as with einops: chunk, products by einsum or @, a mask by masked_fill, rotated positions."""

    def __init__(self, einsum: bool = False, masked: bool = False, rotary: bool = False) -> None:
        super().__init__()
        self.qkv, self.einsum, self.masked, self.rotary = (
            nn.Linear(WIDTH, 3 * WIDTH, bias=False),
            einsum,
            masked,
            rotary,
        )

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        parts = (part.view(batch, tokens, 2, -1).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1))
        query, key, value = parts
        if self.rotary:
            query, key = rotated(query), rotated(key)
        if self.einsum:
            scores = torch.einsum("bhid,bhjd->bhij", query, key) * 0.3
        else:
            scores = (query @ key.transpose(-2, -1)) / (WIDTH // 2) ** 0.5
        if self.masked:
            ahead = torch.ones(tokens, tokens, device=x.device).triu(1).bool()
            scores = scores.masked_fill(ahead, float("-inf"))
        weights = scores.softmax(-1)
        mixed = torch.einsum("bhij,bhjd->bhid", weights, value) if self.einsum else weights @ value
        return mixed.transpose(1, 2).contiguous().view(batch, tokens, -1)


def rotated(x: Tensor) -> Tensor:
    """By angles that are computed from the number of tokens."""
    half = x.shape[-1] // 2
    rates = 1.0 / 100 ** (torch.arange(half, device=x.device) / half)
    angles = torch.arange(x.shape[2], device=x.device)[:, None] * rates
    left, right = x[..., :half], x[..., half:]
    return torch.cat([left * angles.cos() - right * angles.sin(), left * angles.sin() + right * angles.cos()], -1)


class TokenMixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(17, 17)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(x.transpose(1, 2)).transpose(1, 2)


class Swin(nn.Module):
    """Shifted windows: roll, windows by view and permute, a table of relative positions, a mask over the seam."""

    def __init__(self, size: int = 8, window: int = 4) -> None:
        super().__init__()
        self.embed, self.window = nn.Conv2d(3, WIDTH, 4, 4), window
        self.norm, self.qkv, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, CLASSES)
        self.table = nn.Parameter(torch.randn((2 * window - 1) ** 2, 2))
        steps = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")).flatten(1)
        apart = (steps[:, :, None] - steps[:, None]) + window - 1
        self.register_buffer("places", apart[0] * (2 * window - 1) + apart[1])
        part = torch.zeros(1, size, size, 1)
        part[:, size // 2 :] = 1
        seam = self.windows(part).squeeze(-1)
        self.register_buffer("mask", (seam[:, None] != seam[:, :, None]).float() * -100)

    def windows(self, x: Tensor) -> Tensor:
        batch, height, width, channels = x.shape
        x = x.view(batch, height // self.window, self.window, width // self.window, self.window, channels)
        return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, self.window**2, channels)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x).permute(0, 2, 3, 1)
        batch, height, width, channels = tokens.shape
        windows = self.windows(torch.roll(self.norm(tokens), (-2, -2), (1, 2)))
        count, area, _ = windows.shape
        query, key, value = self.qkv(windows).reshape(count, area, 3, 2, channels // 2).permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(-2, -1) * 0.3
        scores = scores + self.table[self.places.view(-1)].view(area, area, 2).permute(2, 0, 1).unsqueeze(0)
        scores = scores.view(batch, -1, 2, area, area) + self.mask.unsqueeze(1).unsqueeze(0)
        mixed = (scores.view(-1, 2, area, area).softmax(-1) @ value).transpose(1, 2).reshape(count, area, channels)
        sides = height // self.window, width // self.window
        mixed = mixed.view(batch, *sides, self.window, self.window, channels).permute(0, 1, 3, 2, 4, 5)
        mixed = torch.roll(mixed.reshape(batch, height, width, channels), (2, 2), (1, 2))
        return self.head((tokens + mixed).flatten(1, 2).mean(1))


class GlobalResponse(nn.Module):
    """ConvNeXt V2's block on (B,C,H,W), with channels last inside."""

    def __init__(self) -> None:
        super().__init__()
        self.deep, self.norm = nn.Conv2d(WIDTH, WIDTH, 7, padding=3, groups=WIDTH), nn.LayerNorm(WIDTH, eps=1e-6)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.gamma = nn.Parameter(torch.randn(1, 1, 1, 2 * WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        out = functional.gelu(self.up(self.norm(self.deep(x).permute(0, 2, 3, 1))))
        energy = torch.norm(out, p=2, dim=(1, 2), keepdim=True)
        out = out + self.gamma * (out * (energy / (energy.mean(-1, keepdim=True) + 1e-6)))
        return x + self.down(out).permute(0, 3, 1, 2)


class Excited(nn.Module):
    """Squeeze and excitation, as MobileNetV3 (`hard`) and EfficientNet have it."""

    def __init__(self, hard: bool) -> None:
        super().__init__()
        act, gate = (nn.Hardswish(), nn.Hardsigmoid()) if hard else (nn.SiLU(), nn.Sigmoid())
        self.wide = nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 3, 1, 1, groups=WIDTH), nn.BatchNorm2d(WIDTH), act)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(WIDTH, 4, 1), nn.ReLU(), nn.Conv2d(4, WIDTH, 1), gate
        )

    def forward(self, x: Tensor) -> Tensor:
        wide = self.wide(x)
        return x + wide * self.gate(wide)


class OnMaps(nn.Module):
    """A function of feature maps (B,16,16,16)."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def convolutional(*middle: nn.Module, channels: int = WIDTH, head: "nn.Module | None" = None) -> nn.Module:
    """A stem to (B,16,16,16), what stands between, global pooling and a linear head."""
    stem = [nn.Conv2d(3, WIDTH, 3, 2, 1), nn.BatchNorm2d(WIDTH), nn.ReLU()]
    end = [head] if head is not None else [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES)]
    return nn.Sequential(*stem, *middle, *end)


def shuffled(x: Tensor) -> Tensor:
    batch, channels, height, width = x.size()
    return x.view(batch, 4, channels // 4, height, width).transpose(1, 2).contiguous().view(batch, -1, height, width)


class Dense(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        widths = [WIDTH + 4 * k for k in range(3)]
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, 4, 3, 1, 1)) for width in widths
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return functional.avg_pool2d(x, 2)


class Inception(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.point, self.wide = nn.Conv2d(WIDTH, 4, 1), nn.Conv2d(WIDTH, 4, (1, 7), padding=(0, 3))
        self.pool, self.last = nn.Conv2d(WIDTH, 4, 1), nn.MaxPool2d(3, 2, ceil_mode=True)

    def forward(self, x: Tensor) -> Tensor:
        mean = functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        parts = [self.point(x), self.wide(x), self.pool(mean), functional.max_pool2d(x, 3, 1, 1)]
        return self.last(torch.cat(parts, 1))


class Residual(nn.Module):
    def __init__(self, norm: nn.Module, act: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 3, 1, 1, bias=False), norm, act)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Cosine(nn.Module):
    """A head of angles between features and the classes' directions."""

    def __init__(self) -> None:
        super().__init__()
        self.directions = nn.Parameter(torch.randn(CLASSES, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        features = functional.normalize(x.mean((2, 3)), dim=1)
        return 10 * functional.linear(features, functional.normalize(self.directions, dim=1))


class Selective(nn.Module):
    """Two branches, weighed by a softmax over them."""

    def __init__(self) -> None:
        super().__init__()
        self.near, self.far = nn.Conv2d(WIDTH, WIDTH, 3, 1, 1), nn.Conv2d(WIDTH, WIDTH, 3, 1, 2, 2)
        self.weigh = nn.Linear(WIDTH, 2 * WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        branches = torch.stack([self.near(x), self.far(x)], 1)
        weights = self.weigh(branches.sum(1).mean((-2, -1))).view(x.shape[0], 2, WIDTH).softmax(1)
        return (branches * weights[..., None, None]).sum(dim=1)


class Coordinates(nn.Module):
    """The place of each pixel as two further channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(WIDTH + 2, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        rows = torch.linspace(-1, 1, height, device=x.device).view(1, 1, height, 1).expand(batch, 1, height, width)
        columns = torch.arange(width, device=x.device).float().div(width).view(1, 1, 1, width).expand_as(rows)
        return self.conv(torch.cat([x, rows, columns], 1)).relu()


class Folded(nn.Module):
    """Patches by `unfold`, the largest values of each channel by `topk`."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.head = nn.Linear(WIDTH * 16, WIDTH), nn.Linear(3 * WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.linear(functional.unfold(x, 4, stride=4).transpose(1, 2))
        return self.head(tokens.topk(3, dim=1).values.flatten(1))


class Standardized(nn.Conv2d):
    """Weight standardization."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight
        deviation = weight.std((1, 2, 3), keepdim=True, unbiased=False) + 1e-5
        return self._conv_forward(x, (weight - weight.mean((1, 2, 3), keepdim=True)) / deviation, self.bias)


def per_image(x: Tensor) -> Tensor:
    return (x - x.mean((1, 2, 3), keepdim=True)) / x.std((1, 2, 3), keepdim=True).clamp_min(1e-3)


def upsampled(x: Tensor) -> Tensor:
    up = functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
    return up[:, :, ::2, 1::2] + functional.interpolate(functional.max_pool2d(x, 2), size=x.shape[-2:], mode="nearest")


def padded(x: Tensor) -> Tensor:
    x = functional.pad(x, (1, 2, 2, 1), mode="reflect")
    return functional.pad(functional.pad(x, (1, 1, 0, 1), mode="replicate"), (1, 0, 2, 0), mode="circular")


def split(x: Tensor) -> Tensor:
    value, gate = x.chunk(2, 1)
    first, rest = (value * gate.sigmoid()).split([3, 5], 1)
    return torch.cat([first, rest, functional.glu(x, 1)], 1)


def squeezed(x: Tensor) -> Tensor:
    rows = x.mean(3, keepdim=True).squeeze(-1)[:, :, None, :]
    columns = x.amax(2).unsqueeze(2)
    return torch.where(rows > columns, rows, columns.clamp(-1, 2) * 0.5).squeeze(2).unsqueeze(-1) + x.view(*x.shape)


def transformer_of_torch() -> nn.Module:
    layer = nn.TransformerEncoderLayer(WIDTH, 2, 32, 0.1, "gelu", batch_first=True, norm_first=True)
    return nn.Sequential(Tokens(), layer, MeanToken(), nn.Linear(WIDTH, CLASSES))


def pooled_twice() -> nn.Module:
    pools = [nn.AdaptiveMaxPool2d(4), nn.AdaptiveAvgPool2d((2, 1)), nn.Flatten()]
    return convolutional(head=nn.Sequential(*pools, nn.Linear(2 * WIDTH, CLASSES)))


def places_to_channels() -> nn.Module:
    shuffles = [nn.PixelUnshuffle(2), nn.Conv2d(4 * WIDTH, 4 * WIDTH, 1), nn.ReLU(), nn.PixelShuffle(2)]
    return convolutional(*shuffles, nn.Conv2d(WIDTH, WIDTH, 3))


def bilinear_features(x: Tensor) -> Tensor:
    flat = x.flatten(2)
    second = torch.bmm(flat, flat.transpose(1, 2)) / flat.shape[-1]
    return (second.sign() * (second.abs() + 1e-5).sqrt()).diagonal(dim1=1, dim2=2)


def upwards() -> nn.Module:
    return convolutional(nn.ConvTranspose2d(WIDTH, 8, 3, 2, 1, 1), nn.PReLU(8), nn.InstanceNorm2d(8), channels=8)


#: What it is → what builds it.
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "multi-head attention": lambda: transformer(TorchAttention()),
    "scaled dot product": lambda: transformer(FusedAttention()),
    "causal": lambda: transformer(FusedAttention(causal=True), pool=MeanToken),
    "written attention": lambda: transformer(WrittenAttention()),
    "masked attention": lambda: transformer(WrittenAttention(masked=True), pool=MeanToken),
    "einsum attention": lambda: transformer(WrittenAttention(einsum=True)),
    "rotary attention": lambda: transformer(WrittenAttention(rotary=True)),
    "RMSNorm": lambda: transformer(TokenMixer(), nn.RMSNorm, MeanToken),
    "encoder layer": transformer_of_torch,
    "Swin": Swin,
    "ConvNeXt V2": lambda: convolutional(GlobalResponse()),
    "EfficientNet": lambda: convolutional(Excited(hard=False)),
    "MobileNetV3": lambda: convolutional(Excited(hard=True)),
    "GroupNorm": lambda: convolutional(Residual(nn.GroupNorm(4, WIDTH), nn.Mish())),
    "PixelShuffle": places_to_channels,
    "ShuffleNet": lambda: convolutional(nn.Conv2d(WIDTH, WIDTH, 1, groups=4), OnMaps(shuffled), nn.ELU()),
    "DenseNet": lambda: convolutional(Dense(), channels=WIDTH + 12),
    "Inception": lambda: convolutional(Inception(), channels=12 + WIDTH),
    "interpolate": lambda: convolutional(OnMaps(upsampled)),
    "PoolFormer": lambda: convolutional(Residual(nn.AvgPool2d(3, 1, 1), nn.Identity())),
    "squeezes": lambda: convolutional(OnMaps(squeezed)),
    "adaptive pools": pooled_twice,
    "log_softmax": lambda: nn.Sequential(convolutional(), nn.LogSoftmax(1)),
    "softmax": lambda: nn.Sequential(convolutional(), nn.Softmax(-1)),
    "cosine": lambda: convolutional(head=Cosine()),
    "selective kernels": lambda: convolutional(Selective()),
    "CoordConv": lambda: convolutional(Coordinates()),
    "unfold, topk": lambda: convolutional(head=Folded()),
    "standardized": lambda: nn.Sequential(OnMaps(per_image), convolutional(Standardized(WIDTH, WIDTH, 3))),
    "pads": lambda: convolutional(OnMaps(padded), nn.Conv2d(WIDTH, WIDTH, 3)),
    "split": lambda: convolutional(OnMaps(split)),
    "bilinear": lambda: convolutional(OnMaps(bilinear_features), nn.Linear(WIDTH, CLASSES), head=nn.Identity()),
    "transposed convolution": upwards,
    "maxout": lambda: convolutional(OnMaps(lambda x: x.view(x.shape[0], 8, 2, 16, 16).max(2).values), channels=8),
}
