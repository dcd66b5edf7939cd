"""The 8-bit grid on which a deployed model receives its images."""

from fractions import Fraction

import torch
from torch import Tensor


def radius(eps: str) -> int:
    """⌊255 ε⌋: the largest integer radius inside ε, exactly, from a fraction as written."""
    return int(255 * Fraction(eps))


def snap(x_adv: Tensor, clean: Tensor, eps: str) -> Tensor:
    """The nearest uint8 image to float x_adv within ⌊255 ε⌋ of the uint8 clean image. (B,C,H,W) uint8."""
    levels = (x_adv * 255).round().to(torch.int16)
    center = clean.to(torch.int16)
    limit = radius(eps)
    return levels.clamp(min=center - limit, max=center + limit).clamp(0, 255).to(torch.uint8)
