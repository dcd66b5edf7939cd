"""Fake quantization: a tensor on the symmetric 8-bit grid that the exported file has, gradients straight through.

level = clip(round(x / scale)), ties to even, zero point 0; value = level · scale. scale = amax / 255 for levels 0…255,
of what is never negative, else amax / 127 for levels −128…127. In float32, in the order in which runtimes compute it.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

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
