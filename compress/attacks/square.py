"""The Square attack (Andriushchenko et al. 2020) on the model's device, L∞ and L2; scores, no gradients."""

import functools
import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from compress.attacks import ball, losses
from compress.attacks.contract import Task, draw, logits_of
from edge.attacks.square import SCHEDULE

BLOCK = 100  # queries between two looks at which images still stand


@dataclass(frozen=True)
class Square:
    """Random search with squares that shrink along the paper's schedule, which spans `span` queries.

    With 5,000 queries and a span of 10,000, as in the standard ensemble, the search ends halfway down the schedule;
    `edge.attacks.square` always goes all the way, as a span equal to the queries does here. Differs from the published
    code: the schedule counts queries from 1, the start included, two ahead of its count of squares; windows reach the
    last row and column, and each image draws its own.
    """

    queries: int = 5000
    p_init: float = 0.8
    span: int = 10_000

    @property
    def name(self) -> str:
        return "square"

    def parameters(self) -> dict[str, Any]:
        return asdict(self)

    def run(self, task: Task) -> Tensor:
        """Each image's best candidate; one that broke moves no more, and its later queries are not asked."""
        judge = losses.verdict(task.y)
        verdict = judge(logits_of(task.model, task.x))
        best = task.x.clone()
        for first in range(1, self.queries, BLOCK):
            standing = (verdict <= 0).nonzero()[:, 0]
            if not len(standing):
                break
            block = range(first, min(first + BLOCK, self.queries))
            best[standing], verdict[standing] = self._block(task.of(standing), best[standing], verdict[standing], block)
        return best

    def _block(self, task: Task, best: Tensor, verdict: Tensor, block: range) -> tuple[Tensor, Tensor]:
        """The best images (B,C,H,W) and their verdicts (B,) after the queries of the block."""
        judge, channels = losses.verdict(task.y), task.x.shape[1]
        draws = draw(task, self.name, block, 2 + channels if task.norm == "linf" else 5 + channels)
        for place, query in enumerate(block):
            if query == 1:  # where the search starts, better or not
                best = (_stripes if task.norm == "linf" else _tiles)(task, self.name)
                verdict = judge(logits_of(task.model, best))
                continue
            side = self._side(query, *task.x.shape[2:])
            moved = (_square if task.norm == "linf" else _exchange)(task, best, draws[:, place], side)
            reached = judge(logits_of(task.model, moved))
            better = (reached > verdict) & (verdict <= 0)
            best = torch.where(ball.column(better), moved, best)
            verdict = torch.where(better, reached, verdict)
        return best, verdict

    def _side(self, query: int, height: int, width: int) -> int:
        """Side of the square in pixels at one query."""
        share = min(query / self.span, 1)
        divisor = next(divisor for upto, divisor in SCHEDULE if share <= upto)
        return max(1, min(round(math.sqrt(self.p_init / divisor * height * width)), height, width))


def _signs(draws: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.where(draws < 0.5, -1.0, 1.0).to(dtype)


def _stripes(task: Task, name: str) -> Tensor:
    """The start in L∞: vertical stripes of ±ε, a sign for each channel and column."""
    n, channels, _, width = task.x.shape
    signs = _signs(draw(task, name, 1, channels * width), task.x.dtype).view(n, channels, 1, width)
    return ball.project(task.x + task.eps * signs, task.x, task.eps, task.norm)


def _window(draws: Tensor, side: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A square of `side` at a place drawn (B,2): its mask (B,1,H,W), its first row and its first column (B,)."""
    height, width = like.shape[2:]
    top = (draws[:, 0] * (height - side + 1)).long()
    left = (draws[:, 1] * (width - side + 1)).long()
    rows = torch.arange(height, device=like.device) - top[:, None]
    columns = torch.arange(width, device=like.device) - left[:, None]
    inside = ((rows >= 0) & (rows < side))[:, :, None] & ((columns >= 0) & (columns < side))[:, None, :]
    return inside[:, None], top, left


def _square(task: Task, best: Tensor, draws: Tensor, side: int) -> Tensor:
    """L∞: one square pushed to one end of the ball, a sign for each channel; turned round if that changes nothing."""
    window, _, _ = _window(draws[:, :2], side, best)
    step = window * (2 * task.eps) * _signs(draws[:, 2:], best.dtype)[:, :, None, None]
    moved = ball.project(best + step, task.x, task.eps, task.norm)
    same = (moved == best).flatten(1).all(1)
    return torch.where(ball.column(same), ball.project(best - step, task.x, task.eps, task.norm), moved)


def _tiles(task: Task, name: str) -> Tensor:
    """The start in L2: the image tiled with `_hill`s, each at a sign for each channel and turned or not."""
    n, channels, height, width = task.x.shape
    side = max(min(height, width) // 5, 1)
    down, across = height // side, width // side
    draws = draw(task, name, 1, (channels + 1) * down * across).view(n, channels + 1, down, across)
    signs = _signs(draws[:, :channels], task.x.dtype).repeat_interleave(side, 2).repeat_interleave(side, 3)
    turned = (draws[:, channels:] < 0.5).repeat_interleave(side, 2).repeat_interleave(side, 3)
    hill = _hill(side, task.x.device, task.x.dtype)
    tiles = torch.where(turned, hill.T.repeat(down, across), hill.repeat(down, across)) * signs
    above, before = (height - down * side) // 2, (width - across * side) // 2
    around = (before, width - across * side - before, above, height - down * side - above)
    delta = ball.unit(torch.nn.functional.pad(tiles, around), task.norm)
    return ball.project(task.x + task.eps * delta, task.x, task.eps, task.norm)


def _exchange(task: Task, best: Tensor, draws: Tensor, side: int) -> Tensor:
    """L2: one window's budget taken away and spent, with what is unused, on a hill in another window.

    `draws` (B, 5 + C): the place of the window that gains, of the one that loses, the turn, a sign for each channel.
    """
    height, width = task.x.shape[2:]
    side = min(max(side, 3) | 1, height, width)  # odd, and at least 3, so that a hill has both its halves
    gains, top, left = _window(draws[:, :2], side, best)
    loses, _, _ = _window(draws[:, 2:4], side, best)
    delta = best - task.x
    hill = _hill(side, delta.device, delta.dtype)
    hill = (
        torch.where(ball.column(draws[:, 4] < 0.5), hill.T, hill) * _signs(draws[:, 5:], delta.dtype)[..., None, None]
    )
    old = torch.where(gains, delta, 0)
    fresh = _place(hill, top, left, delta) + _per_channel_unit(old)
    unused = (task.eps**2 - ball.length(delta, "l2") ** 2).clamp(min=0) / delta.shape[1]
    freed = torch.where(gains | loses, delta, 0).square().sum((2, 3), keepdim=True)
    fresh = _per_channel_unit(fresh) * (ball.column(unused) + freed).sqrt()
    delta = torch.where(gains, fresh, torch.where(loses, 0, delta))
    return ball.project(task.x + task.eps * ball.unit(delta, "l2"), task.x, task.eps, task.norm)


def _per_channel_unit(values: Tensor) -> Tensor:
    """Each channel of each image at L2 norm 1; zero stays zero."""
    return values / (values.square().sum((2, 3), keepdim=True).sqrt() + 1e-12)


def _place(patch: Tensor, top: Tensor, left: Tensor, like: Tensor) -> Tensor:
    """Patches (B,C,s,s) at (top, left) of otherwise empty images (B,C,H,W)."""
    side = patch.shape[-1]
    rows = top[:, None] + torch.arange(side, device=like.device)
    columns = left[:, None] + torch.arange(side, device=like.device)
    where = (rows[:, :, None] * like.shape[3] + columns[:, None, :]).flatten(1)[:, None].expand(-1, like.shape[1], -1)
    return torch.zeros_like(like).flatten(2).scatter(2, where, patch.flatten(2)).view_as(like)


@functools.cache
def _hill(side: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The paper's η (eq. 2): a rise in the upper half and its negative in the lower, L2 norm 1; (side,side)."""
    upper = side // 2
    both = torch.cat([_rise(upper, side), -_rise(side - upper, side)])
    return (both / both.square().sum().sqrt()).to(device, dtype)


def _rise(height: int, width: int) -> Tensor:
    """Rectangles around the centre on top of one another, the k-th adding 1/k²; L2 norm 1."""
    count = max(height, width) // 2 + 1
    heights = (1 / torch.arange(1, count + 1, dtype=torch.float64) ** 2).flip(0).cumsum(0).flip(0)
    rows, columns = torch.arange(height) - height // 2, torch.arange(width) - width // 2
    rise = heights[torch.maximum(rows.abs()[:, None], columns.abs()[None])]
    return rise / rise.square().sum().sqrt()
