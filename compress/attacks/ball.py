"""The ball of radius ε around images, and the images of the 8-bit grid inside it.

Cut by the image range [0, 1], in L∞ and L2, all per image, no host sync. A deployed model receives its images on the
grid: float candidates come onto it by `settle_on_grid`.
"""

from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from compress.attacks.losses import ImageLoss
from compress.data.split import to_float

if TYPE_CHECKING:
    from compress.attacks.contract import Model


def column(values: Tensor) -> Tensor:
    """One value an image (B,), shaped to meet images (B,1,1,1)."""
    return values.view(-1, 1, 1, 1)


def length(delta: Tensor, norm: str) -> Tensor:
    """The norm of each image's delta (B,C,H,W) → (B,)."""
    return torch.linalg.vector_norm(delta.flatten(1), ord=torch.inf if norm == "linf" else 2, dim=1)


def unit(delta: Tensor, norm: str) -> Tensor:
    """Each image's delta scaled to norm 1; zero stays zero. Squares of tiny values do not underflow."""
    tiny = torch.finfo(delta.dtype).tiny
    scaled = delta / column(length(delta, "linf").clamp(min=tiny))
    return scaled if norm == "linf" else scaled / column(length(scaled, norm).clamp(min=tiny))


def uphill(gradient: Tensor, norm: str) -> Tensor:
    """The direction of norm ≤ 1 that gains most along the gradient: its sign, or the gradient at length 1."""
    return gradient.sign() if norm == "linf" else unit(gradient, norm)


def project(moved: Tensor, x: Tensor, eps: float, norm: str) -> Tensor:
    """`moved` (B,C,H,W) brought into the ball around x and into [0, 1]; exact in L∞.

    In L2 it is scaled first and clipped then: clipping to a box that holds x only shortens the way.
    """
    if norm == "linf":
        return torch.clamp(moved, (x - eps).clamp(min=0), (x + eps).clamp(max=1))
    delta = moved - x
    # the quotient before the bound: at a delta of zero it is infinite, and the bound 1
    return (x + delta * column((eps / length(delta, norm)).clamp(max=1))).clamp(0, 1)


# ------------------------------------------------------------------------------------------- the 8-bit grid


def grid_radius(eps: str) -> int:
    """⌊255 ε⌋: the largest integer radius inside ε, exactly, from a fraction as written."""
    return int(255 * Fraction(eps))


def snap_to_grid(x_adv: Tensor, clean: Tensor, eps: str) -> Tensor:
    """The nearest uint8 image to float x_adv within ⌊255 ε⌋ of the uint8 clean image. (B,C,H,W) uint8."""
    levels = (x_adv * 255).round().to(torch.int16)
    center = clean.to(torch.int16)
    limit = grid_radius(eps)
    return levels.clamp(min=center - limit, max=center + limit).clamp(0, 255).to(torch.uint8)


def settle_on_grid(model: "Model", floats: Tensor, clean: Tensor, eps: str, judge: ImageLoss) -> Tensor:
    """Float candidates (B,C,H,W) as uint8 images within ⌊255 ε⌋ of the uint8 `clean`, asked again after rounding.

    Each is rounded as it is and stretched to the whole radius, of which the larger `judge` of the model's logits
    counts: what ends just behind a boundary, as FAB's candidates do, may fall back over it when rounded.
    """
    best = snap_to_grid(floats, clean, eps)
    value = _value(model, best, judge)
    x = to_float(clean)
    moved = floats - x
    size = column(moved.abs().amax((1, 2, 3)))  # what did not move stays
    stretched = x + moved * (grid_radius(eps) / 255 / size.where(size > 0, torch.ones_like(size)))
    other = snap_to_grid(stretched, clean, eps)
    return torch.where(column(_value(model, other, judge) > value), other, best)


def _value(model: "Model", images: Tensor, judge: ImageLoss) -> Tensor:
    with torch.no_grad():
        return judge(model(to_float(images)))


def tensor_batches(*arrays: np.ndarray, batch_size: int) -> "zip[tuple[Tensor, ...]]":
    """The arrays' batches, side by side."""
    return zip(*(torch.from_numpy(array).split(batch_size) for array in arrays), strict=True)
