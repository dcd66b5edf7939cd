"""Vision transformers as DeiT has them (Touvron et al. 2021), of any patch size, for images of one size."""

import math

import torch
from torch import Tensor, nn

from compress.networks.base import Add, Classifier, Features, preprocessing
from edge.core.errors import CompressError

#: Width, blocks and heads by the name between `vit-` and the patch size; `nano` is for images of digits' size.
SHAPES = {"nano": (64, 4, 2), "ti": (192, 12, 3), "s": (384, 12, 6), "b": (768, 12, 12)}
EXPANSION = 4
EPS = 1e-6
DEVIATION = 0.02  # of fresh weights, cut off at ±2


class PatchEmbedding(nn.Module):
    """Square patches, each by one linear map: (B,C,H,W) → (B, H/p · W/p, D), row by row."""

    def __init__(self, channels: int, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch, patch)

    def forward(self, x: Tensor) -> Tensor:
        tokens: Tensor = self.proj(x)
        return tokens.flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """softmax(q kᵀ / √d) v of each head, in plain operations: every one of them may be quantized and differentiated."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B,N,D) → (B,N,D)."""
        _, tokens, width = x.shape
        each = width // self.heads
        q, k, v = self.qkv(x).reshape(-1, tokens, 3, self.heads, each).permute(2, 0, 3, 1, 4).unbind(0)  # (B,h,N,d)
        scores = (q * each**-0.5) @ k.transpose(-2, -1)
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(-1, tokens, width))


class Mlp(nn.Module):
    """Two linear layers with GELU between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, EXPANSION * width)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(EXPANSION * width, width)

    def forward(self, x: Tensor) -> Tensor:
        narrow: Tensor = self.fc2(self.act(self.fc1(x)))
        return narrow


class TransformerBlock(nn.Module):
    """Attention, then the MLP, either behind a LayerNorm and added to what came in."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, EPS)
        self.attn = Attention(width, heads)
        self.add1 = Add()
        self.norm2 = nn.LayerNorm(width, EPS)
        self.mlp = Mlp(width)
        self.add2 = Add()

    def forward(self, x: Tensor) -> Tensor:
        x = self.add1(x, self.attn(self.norm1(x)))
        tokens: Tensor = self.add2(x, self.mlp(self.norm2(x)))
        return tokens


class VisionTransformer(Classifier):
    """Pre-norm blocks over patches and a class token, which the head reads; learned position embeddings.

    Parameter names are DeiT's and timm's, so that their weights load. Pooled features are the class token behind the
    last LayerNorm. Stages are the patches' tokens as maps (B,D,H/p,W/p) behind a third and two thirds of the blocks and
    before the last one: behind that nothing reads them. Dropout and stochastic depth are left out, as robust training
    of small networks does without (Mo et al. 2022).
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
        """`name` is `vit-SHAPE-PATCH`; `size`, of the images, decides how many positions there are."""
        super().__init__()
        _, shape, text = name.split("-")
        patch = int(text)
        width, depth, heads = SHAPES[shape]
        rows, columns = grid(name, patch, size)
        self.preprocess = preprocessing(flags, channels)
        self.patch_embed = PatchEmbedding(channels, width, patch)
        self.grid = (rows, columns)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + rows * columns, width))
        self.blocks = nn.ModuleList(TransformerBlock(width, heads) for _ in range(depth))
        self.ends = (depth // 3, 2 * depth // 3, depth - 1)  # so many blocks lie before each stage
        self.norm = nn.LayerNorm(width, EPS)
        self.head = nn.Linear(width, classes)
        self._initialise()

    def _initialise(self) -> None:
        """As DeiT: truncated normal weights and embeddings, zero biases; patches as the linear map that they are."""
        for weight in (self.cls_token, self.pos_embed):
            nn.init.trunc_normal_(weight, std=DEVIATION)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=DEVIATION)
                nn.init.zeros_(module.bias)
        projection = self.patch_embed.proj
        nn.init.trunc_normal_(projection.weight, std=math.sqrt(1 / projection.weight[0].numel()))
        assert projection.bias is not None
        nn.init.zeros_(projection.bias)

    def forward_features(self, x: Tensor) -> Features:
        patches = self.patch_embed(self.preprocess(x))
        tokens = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), patches], 1) + self.pos_embed
        stages = []
        for number, block in enumerate(self.blocks):
            if number in self.ends:
                stages.append(tokens[:, 1:].transpose(1, 2).unflatten(2, self.grid))
            tokens = block(tokens)
        pooled = self.norm(tokens)[:, 0]
        return Features(self.head(pooled), pooled, tuple(stages))


def grid(name: str, patch: int, size: "tuple[int, int] | None") -> tuple[int, int]:
    """Rows and columns of patches; CompressError with sizes that work where they do not cover the image."""
    if size is None:
        raise CompressError(f"{name}: its position embeddings are for images of one size; give their height and width")
    if all(side >= patch and side % patch == 0 for side in size):
        return size[0] // patch, size[1] // patch
    fits = [divisor for divisor in range(2, min(size)) if math.gcd(*size) % divisor == 0]
    names = [f"{name.rpartition('-')[0]}-{fit}" for fit in sorted(fits, key=lambda fit: abs(math.log(fit / patch)))]
    fix = f"take {' or '.join(names[:3])}, or" if names else "take"
    near = "×".join(str(max(patch, round(side / patch) * patch)) for side in size)
    raise CompressError(
        f"{name}: patches of {patch}×{patch} do not cover images of {size[0]}×{size[1]}; {fix} images of {near}"
    )
