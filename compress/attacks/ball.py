"""The ball of radius ε around images, cut by the image range [0, 1], in L∞ and L2; all per image, no host sync."""

import torch
from torch import Tensor


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
