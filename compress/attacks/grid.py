"""The 8-bit grid on which a deployed model receives its images, and the way of float candidates onto it."""

from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from compress.attacks.ball import column
from compress.attacks.contract import Model
from compress.attacks.losses import ImageLoss
from compress.data.split import to_float


def radius(eps: str) -> int:
    """⌊255 ε⌋: the largest integer radius inside ε, exactly, from a fraction as written."""
    return int(255 * Fraction(eps))


def snap(x_adv: Tensor, clean: Tensor, eps: str) -> Tensor:
    """The nearest uint8 image to float x_adv within ⌊255 ε⌋ of the uint8 clean image. (B,C,H,W) uint8."""
    levels = (x_adv * 255).round().to(torch.int16)
    center = clean.to(torch.int16)
    limit = radius(eps)
    return levels.clamp(min=center - limit, max=center + limit).clamp(0, 255).to(torch.uint8)


def settle_on_grid(model: Model, floats: Tensor, clean: Tensor, eps: str, judge: ImageLoss) -> Tensor:
    """Float candidates (B,C,H,W) as uint8 images within ⌊255 ε⌋ of the uint8 `clean`, asked again after rounding.

    Each is rounded as it is and stretched to the whole radius, of which the larger `judge` of the model's logits
    counts: what ends just behind a boundary, as FAB's candidates do, may fall back over it when rounded.
    """
    best = snap(floats, clean, eps)
    value = _value(model, best, judge)
    other = snap(_stretched(floats, to_float(clean), radius(eps) / 255), clean, eps)
    return torch.where(column(_value(model, other, judge) > value), other, best)


def _stretched(floats: Tensor, x: Tensor, radius: float) -> Tensor:
    """x + δ with δ scaled to the radius in its largest pixel; what did not move stays."""
    moved = floats - x
    size = column(moved.abs().amax((1, 2, 3)))
    return x + moved * (radius / size.where(size > 0, torch.ones_like(size)))


def _value(model: Model, images: Tensor, judge: ImageLoss) -> Tensor:
    with torch.no_grad():
        return judge(model(to_float(images)))


def tensor_batches(*arrays: np.ndarray, batch_size: int) -> "zip[tuple[Tensor, ...]]":
    """The arrays' batches, side by side."""
    return zip(*(torch.from_numpy(array).split(batch_size) for array in arrays), strict=True)
