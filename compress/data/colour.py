"""Colour operations on whole batches, float32 (B,C,H,W) in [0, 1] in and out; strengths (B,), on the images' device.

They compute what PIL's operations of the same names do on 8-bit images, without rounding to 8 bit in between.
"""

import torch
from torch import Tensor
from torch.nn import functional

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, of R, G, B


def grey(x: Tensor) -> Tensor:
    """Luminance of three channels, else the channels' mean; (B,1,H,W)."""
    if x.shape[1] != 3:
        return x.mean(1, keepdim=True)
    return (x * x.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)


def saturation(x: Tensor, strength: Tensor) -> Tensor:
    """Grey at 0, x at 1; images of one channel have no saturation and stay."""
    return _blend(grey(x), x, strength)


def brightness(x: Tensor, strength: Tensor) -> Tensor:
    """Black at 0, x at 1."""
    return _blend(torch.zeros_like(x), x, strength)


def contrast(x: Tensor, strength: Tensor) -> Tensor:
    """The mean luminance everywhere at 0, x at 1."""
    return _blend(grey(x).mean((2, 3), keepdim=True), x, strength)


def sharpness(x: Tensor, strength: Tensor) -> Tensor:
    """Smoothed at 0, x at 1: 3×3, weight 5 in the middle and 1 around it, the outermost pixels as they are."""
    if min(x.shape[2:]) < 3:
        return x
    smooth = x.clone()
    smooth[:, :, 1:-1, 1:-1] = (9 * functional.avg_pool2d(x, 3, 1) + 4 * x[:, :, 1:-1, 1:-1]) / 13
    return _blend(smooth, x, strength)


def autocontrast(x: Tensor) -> Tensor:
    """Each channel stretched to [0, 1]; a channel of one value stays as it is."""
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    span = high - low
    return torch.where(span > 0, (x - low) / torch.where(span > 0, span, 1), x)


def equalize(x: Tensor) -> Tensor:
    """Each channel's histogram flattened, as PIL does it on 256 levels; a channel too uneven for that stays."""
    levels = (x * 255).round().long().flatten(2)
    counts = torch.zeros(*x.shape[:2], 256, dtype=torch.long, device=x.device)
    counts.scatter_add_(2, levels, torch.ones_like(levels))
    brightest = counts.gather(2, levels.amax(2, keepdim=True))
    step = (levels.shape[2] - brightest) // 255
    below = counts.cumsum(2) - counts
    table = ((below + step // 2) // step.clamp(min=1)).clamp(max=255).to(x.dtype) / 255
    return torch.where(step[..., None] > 0, table.gather(2, levels).view(x.shape), x)


def _blend(other: Tensor, x: Tensor, strength: Tensor) -> Tensor:
    """`other` at strength 0, x at 1, past x above 1; clipped to [0, 1]."""
    weight = strength[:, None, None, None]
    return (other * (1 - weight) + x * weight).clamp(0, 1)
