"""The shortest way to a hyperplane inside the image range (Croce & Hein 2020b, eq. 4): exact, by one sort an image."""

import torch
from torch import Tensor


def to_hyperplane(points: Tensor, w: Tensor, gap: Tensor, norm: str) -> Tensor:
    """The shortest d (B,n) with w·d = gap and points + d in [0, 1]; points and w (B,n), gap (B,).

    Every coordinate moves towards the plane by min(λ s, room): s = 1 in L∞ and |w| in L2, `room` its way to the edge of
    the range. w·d then grows with λ, linearly between the λ at which a coordinate meets its edge; sorting these finds
    the piece that holds λ. Where no point of the range reaches it, all go to their edges. A w of zero moves none.
    """
    tiny = torch.finfo(w.dtype).tiny
    scale = w.abs().amax(1, keepdim=True).clamp(min=tiny)
    weight = w / scale * torch.where(gap < 0, -1, 1)[:, None]
    need = gap.abs() / scale[:, 0]
    size = weight.abs()
    used = size > torch.finfo(w.dtype).eps ** 2  # of the largest: below, a coordinate cannot contribute
    room = torch.where(weight > 0, 1 - points, points) * used
    speed = used.to(w.dtype) if norm == "linf" else size * used
    edge, order = torch.where(used, room / speed, 0).sort(1)
    spent = torch.nn.functional.pad((size * room).gather(1, order).cumsum(1), (1, 0))[:, :-1]  # by those at their edge
    slope = (size * speed).gather(1, order).flip(1).cumsum(1).flip(1)  # of those that still move
    piece = (spent + edge * slope < need[:, None]).sum(1, keepdim=True).clamp(max=w.shape[1] - 1)
    at_edge = edge.gather(1, piece)
    way = (need[:, None] - spent.gather(1, piece)) / slope.gather(1, piece).clamp(min=tiny)
    way = torch.minimum(way.clamp(min=0), at_edge)
    return weight.sign() * torch.minimum(way * speed, room)
