"""What every network offers, several as one, and the operations that quantization needs as modules."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Features:
    """One forward pass: `logits` (B,K), `pooled` penultimate features (B,D), `stages` feature maps (B,C,H,W).

    `rounded`: computed with fewer digits than float32 has, though they come in it.
    """

    logits: Tensor
    pooled: Tensor
    stages: tuple[Tensor, ...]
    rounded: bool = False


class Classifier(nn.Module):
    """A network whose features come from the same pass as its logits."""

    #: Whether `pooled` holds features; a network that gives nothing but logits has (B,0) there.
    has_features = True

    def forward_features(self, x: Tensor) -> Features:
        """Images (B,C,H,W) in [0, 1] → logits with the features behind them."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Images (B,C,H,W) in [0, 1] → logits (B,K)."""
        return self.forward_features(x).logits


class Activation(nn.ReLU):
    """ReLU as a module of its own, so that a quantizer can stand behind it."""


class ShiftedSiLU(nn.Module):
    """PSSiLU (Dai et al. 2021, eq. 5): x · (σ(|α| x) − |β|) / (1 − |β|), α and β learned."""

    def __init__(self) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.tensor([1e-8]))
        self.alpha = nn.Parameter(torch.tensor([1.0]))

    def forward(self, x: Tensor) -> Tensor:
        floor = self.beta.abs()
        return x * (torch.sigmoid(self.alpha.abs() * x) - floor) / (1 - floor)


class Add(nn.Module):
    """The residual sum as a module, so that quantizers can stand before it."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b


class Normalize(nn.Module):
    """(x − mean) / std by channel. The constants travel with the weights; without it the input is used as it is."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("std", torch.ones(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std  # type: ignore[operator]


class Standardize(nn.Module):
    """Each image to mean 0 and deviation 1 over all its values, the deviation at least 1/√values."""

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean((1, 2, 3), keepdim=True)
        values = x.shape[1] * x.shape[2] * x.shape[3]
        return centred / x.std((1, 2, 3), keepdim=True).clamp(min=values**-0.5)


class SamePad(nn.Module):
    """What TensorFlow's SAME puts around an image before a 3×3 convolution of stride 2: one row below and one column
    right of an even side, one on either end of an odd side."""

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2] % 2, x.shape[3] % 2
        return nn.functional.pad(x, (width, 1, height, 1))


def conv3x3(inputs: int, outputs: int, stride: int, *, same: bool = False) -> nn.Conv2d:
    """A 3×3 convolution without bias, padded by 1 on every side; with `same` and a stride `padding` comes before."""
    return nn.Conv2d(inputs, outputs, 3, stride, 0 if same and stride > 1 else 1, bias=False)


def padding(stride: int, *, same: bool) -> nn.Module:
    """What stands before `conv3x3` of that stride."""
    return SamePad() if same and stride > 1 else nn.Identity()


def preprocessing(flags: "frozenset[str]", channels: int) -> nn.Module:
    """What stands before the first convolution."""
    if "normalize" in flags:
        return Normalize(channels)
    return Standardize() if "standardize" in flags else nn.Identity()


def activation(flags: "frozenset[str]") -> Callable[[], nn.Module]:
    """What makes an activation module; one PSSiLU is shared by all places, as its authors do."""
    if "pssilu" in flags:
        shared = ShiftedSiLU()
        return lambda: shared
    return nn.SiLU if "silu" in flags else Activation


def initialise_weights(model: nn.Module) -> None:
    """He initialisation of convolutions by their fan-out; biases 0."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


def count_parameters(model: nn.Module) -> int:
    """How many weights the network has."""
    return sum(weight.numel() for weight in model.parameters())


def count_stored(graph: "onnx.GraphProto") -> int:
    """How many values an ONNX graph stores: weights, and what it holds beside them (scales, shapes)."""
    return sum(math.prod(entry.dims) for entry in graph.initializer)


class Ensemble(Classifier):
    """logits = log mean_k softmax(logits_k), so that their softmax is the mean of the members' scores.

    `pooled` is the members' side by side (widths add up), `stages` are the first member's.
    """

    def __init__(self, members: Sequence[Classifier]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.has_features = all(member.has_features for member in members)

    def forward_features(self, x: Tensor) -> Features:
        members: list[Features] = [member.forward_features(x) for member in self.members]  # type: ignore[operator]
        scores = torch.stack([_single(each.logits).log_softmax(1) for each in members])
        pooled = torch.cat([_single(each.pooled) for each in members], 1)
        return Features(scores.logsumexp(0) - math.log(len(members)), pooled, members[0].stages)


def _single(values: Tensor) -> Tensor:
    """In float32 at least: a mean of scores in half precision would lose the small ones."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
