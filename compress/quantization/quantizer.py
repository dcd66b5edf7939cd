"""Fake quantization: a tensor on the symmetric 8-bit grid that the exported file has, gradients straight through.

level = clip(round(x / scale)), ties to even, zero point 0; value = level · scale. scale = amax / 255 for levels 0…255,
of what is never negative, else amax / 127 for levels −128…127. In float32, in the order in which runtimes compute it.
And the layers, activations and sums with quantizers in them, made from the float ones and sharing their weights.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from compress.networks.base import Activation, Add
from compress.quantization.graph_network import BoundedReLU, MatMul
from compress.quantization.grids import SIGNED, UNSIGNED

#: Below that share of where it began no learned range counts.
LEAST_LEARNED = 1 / 16


class Quantizer(nn.Module):
    """One tensor's quantizer; off until `is_enabled` is set.

    `amax`, the value that the highest level stands for, is (), or (channels,) along the first axis: weights. It is a
    buffer, or while it is learned a parameter, and NaN until it is known.
    """

    amax: Tensor

    def __init__(self, channels: "int | None" = None) -> None:
        super().__init__()
        self.register_buffer("amax", torch.full(() if channels is None else (channels,), math.nan))
        self.unsigned = False
        self.is_enabled = False
        self._least: Tensor | None = None  # while it is learned

    @property
    def levels(self) -> tuple[int, int]:
        """The lowest and the highest level."""
        return UNSIGNED if self.unsigned else SIGNED

    def forward(self, x: Tensor) -> Tensor:
        """float32 x, any shape → the nearest values of the grid."""
        if not self.is_enabled:
            return x
        amax = self.amax if self._least is None else self._above_least()
        if not self.training:  # an attack, which asks for no gradient by ranges
            amax = amax.detach()
        on_grid: Tensor = FakeQuantize.apply(x, amax, *self.levels)
        return on_grid

    def learn(self) -> None:
        """From now on `amax` is a parameter that training moves; its size counts, not below a share of its start."""
        start = self.amax.clone()
        self._least = start * LEAST_LEARNED
        del self.amax
        self.amax = nn.Parameter(start)

    def settle(self) -> None:
        """End of `learn`."""
        learned = self._above_least().detach()
        self._least = None
        del self.amax
        self.register_buffer("amax", learned)

    def _above_least(self) -> Tensor:
        """A step too long must not end at a scale of 0 or below; the gradient passes, so that one leads out again."""
        size = self.amax.abs()
        return size + (torch.maximum(size, self._least.to(size.device)) - size).detach()  # type: ignore[union-attr]

    def extra_repr(self) -> str:
        return f"levels={self.levels}, is_enabled={self.is_enabled}"


class FakeQuantize(torch.autograd.Function):
    """x, amax, lowest and highest level → x on the grid.

    The gradient by x is the output's where the level is not clipped and 0 elsewhere. By amax it is that of learned step
    sizes (Esser et al. 2020, eq. 3 and §2.2): ∂value/∂scale = level − x / scale inside, the end's level outside, summed
    and divided by √(n · highest), n the values that share a scale (of activations those of one image); here times
    `highest`, by which amax = highest · scale moves its scale as far as descent on the scale itself would.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, amax: Tensor, low: int, high: int) -> Tensor:
        scale = (amax / high).reshape(-1, *[1] * (x.ndim - 1)) if amax.ndim else amax / high
        # x is kept by the layers around anyway, levels are not: a division more in backward costs less than new memory
        ctx.save_for_backward(x, scale)
        ctx.low, ctx.high = low, high
        return (x / scale).round_().clamp_(low, high).mul_(scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple["Tensor | None", "Tensor | None", None, None]:
        x, scale = ctx.saved_tensors
        low, high = ctx.low, ctx.high
        ratio = x / scale
        inside = torch.ops.aten.hardtanh_backward(gradient, ratio, low - 0.5, high + 0.5)
        by_amax = None
        if ctx.needs_input_grad[1]:
            level = ratio.round().clamp_(low, high)
            begin = int(scale.ndim > 0)  # the first axis is that of channels
            outside = (gradient - inside).flatten(begin)
            sharing = x[0].numel()  # values of a channel's weights, or of one image
            by_amax = torch.linalg.vecdot(outside, level.flatten(begin))
            by_amax += torch.linalg.vecdot(inside.flatten(begin), level.sub_(ratio).flatten(begin))
            by_amax *= math.sqrt(high / sharing)
        return inside, by_amax, None, None


class QuantConv2d(nn.Conv2d):
    """A convolution of quantized weights; its input passes a quantizer where no activation has quantized it, its output
    where something reads it that does not quantize it."""

    def __init__(self, plain: nn.Conv2d, *, quantizes_input: bool, quantizes_output: bool) -> None:
        super().__init__(
            plain.in_channels,
            plain.out_channels,
            plain.kernel_size,  # type: ignore[arg-type]
            plain.stride,  # type: ignore[arg-type]
            plain.padding,  # type: ignore[arg-type]
            plain.dilation,  # type: ignore[arg-type]
            plain.groups,
            bias=False,
            padding_mode=plain.padding_mode,
            device="meta",
        )
        self.weight, self.bias = plain.weight, plain.bias
        self.input_quantizer = Quantizer() if quantizes_input else nn.Identity()
        self.weight_quantizer = Quantizer(plain.out_channels)
        self.output_quantizer = Quantizer() if quantizes_output else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self._conv_forward(self.input_quantizer(x), self.weight_quantizer(self.weight), self.bias)
        on_grid: Tensor = self.output_quantizer(y)
        return on_grid


class QuantLinear(nn.Linear):
    """A linear layer, as `QuantConv2d`."""

    def __init__(self, plain: nn.Linear, *, quantizes_input: bool) -> None:
        super().__init__(plain.in_features, plain.out_features, bias=False, device="meta")
        self.weight, self.bias = plain.weight, plain.bias
        self.input_quantizer = Quantizer() if quantizes_input else nn.Identity()
        self.weight_quantizer = Quantizer(plain.out_features)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(self.input_quantizer(x), self.weight_quantizer(self.weight), self.bias)


class _QuantizedOutput(nn.Module):
    """What stands first among the bases of an activation whose output is quantized."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.output_quantizer = Quantizer()

    def forward(self, x: Tensor) -> Tensor:
        on_grid: Tensor = self.output_quantizer(super().forward(x))
        return on_grid


class QuantActivation(_QuantizedOutput, Activation):
    """An activation whose output is quantized."""


class QuantBoundedReLU(_QuantizedOutput, BoundedReLU):
    """As `QuantActivation`, of a ReLU with an upper end, or of clamping."""


class _QuantizedSides(nn.Module):
    """What stands first among the bases of an operation on two tensors, either quantized where nothing has done so."""

    def __init__(self, *, quantizes_a: bool, quantizes_b: bool) -> None:
        super().__init__()
        self.a_quantizer = Quantizer() if quantizes_a else nn.Identity()
        self.b_quantizer = Quantizer() if quantizes_b else nn.Identity()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        result: Tensor = super().forward(self.a_quantizer(a), self.b_quantizer(b))
        return result


class QuantAdd(_QuantizedSides, Add):
    """A residual sum whose sides are quantized."""


class QuantMatMul(_QuantizedSides, MatMul):
    """A product of two computed tensors, which are quantized."""


def with_quantizers(plain: nn.Module, sides: "set[str]") -> nn.Module:
    """`plain` with quantizers; `sides`: of input, output, a and b those that are quantized here."""
    if isinstance(plain, nn.Conv2d):
        return QuantConv2d(plain, quantizes_input="input" in sides, quantizes_output="output" in sides)
    if isinstance(plain, nn.Linear):
        return QuantLinear(plain, quantizes_input="input" in sides)
    if isinstance(plain, Add | MatMul):
        kind = QuantAdd if isinstance(plain, Add) else QuantMatMul
        return kind(quantizes_a="a" in sides, quantizes_b="b" in sides)
    if isinstance(plain, BoundedReLU):
        return QuantBoundedReLU(plain.bound, passes_ends=plain.passes_ends)
    return QuantActivation()
