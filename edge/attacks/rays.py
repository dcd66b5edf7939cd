"""RayS, L∞ (Chen & Gu 2020): the nearest decision boundary along sign directions, from predicted labels alone.

A direction is a sign for every pixel. Blocks of signs, halved level by level, are flipped one after another; a flip
is kept when the boundary lies nearer that way, which a bisection measures. Two things are ours: a misclassified image
inside the ball ends the search at once, and when every flip was tried since the last gain, after which the paper's
search would ask the same again, it starts anew from random signs.
"""

import math
import time

import numpy as np

from edge.attacks.checks import wrong
from edge.attacks.search import Ball, Infer, QueryAttackResult, uniform, whose_turn
from edge.core.progress import Progress

FLOAT_TOLERANCE = 1e-3  # of the range of pixels; on the 8-bit grid the bisection is exact


def rays(
    infer: Infer,
    x: np.ndarray,
    y: np.ndarray,
    *,
    eps: float,
    queries: int,
    seed: int = 0,
    ids: "np.ndarray | None" = None,
    batch_size: int = 1,
    deadline: float = math.inf,
) -> QueryAttackResult:
    """Search for misclassified images within eps of x (N,C,H,W), labels y (N,), `queries` calls an image at most.

    uint8 images stay on the 8-bit grid. `ids` (N,) name each image's random stream; its place by default. `batch_size`
    is the runtime's: batches are kept full where that many images stand, which changes no image's own sequence. From
    `deadline` (of `time.monotonic`) on nothing more is asked: `queries` of the result says how far each image came.
    """
    ids = np.arange(len(x)) if ids is None else ids
    ball = Ball.around(x, eps)
    right = ~wrong(infer(x), y)
    search = _Search(ball, seed, ids)
    spent = np.ones(len(x), np.int64)
    active = np.flatnonzero(right) if queries > 1 else np.arange(0)
    with Progress("rays", len(active) * (queries - 1)) as bar:
        while len(active) and time.monotonic() < deadline:
            now = whose_turn(active, spent, batch_size)
            search.update(now, wrong(infer(ball.images(search.candidates(now))), y[now]))
            spent[now] += 1
            active = active[~search.reached[active] & (spent[active] < queries)]
            fallen = now[search.reached[now]]
            standing = int((right & ~search.reached).sum())
            bar.step(len(now) + int((queries - spent[fallen]).sum()), note=f"{standing} images stand")
    return QueryAttackResult(ball.images(search.nearest(right)), ~right | search.reached, spent)


class _Search:
    """Per image: the nearest boundary so far, the direction that is improved, the one on trial, its bisection."""

    def __init__(self, ball: Ball, seed: int, ids: np.ndarray) -> None:
        self.ball, self.seed, self.ids = ball, seed, ids
        n, size = len(ids), int(np.prod(ball.x.shape[1:]))
        self.unit = 1.0 if ball.dtype == np.uint8 else FLOAT_TOLERANCE
        self.best, self.best_radius = np.ones((n, size), np.int8), np.full(n, np.inf)
        self.base, self.radius = self.best.copy(), np.full(n, np.inf)  # since the last start
        self.trial = self.best.copy()  # first the direction itself, then its flips
        self.level, self.block = np.zeros(n, np.int64), np.full(n, -1, np.int64)
        self.fruitless, self.starts = np.zeros(n, np.int64), np.zeros(n, np.int64)  # flips since a gain; restarts
        lengths = [-(-size // 2**level) for level in range((size - 1).bit_length() + 1)]
        self.flips = sum(-(-size // length) for length in lengths)  # over all levels
        self.low, self.high = np.zeros(n), np.full(n, ball.top, float)
        self.bisecting = np.zeros(n, bool)

    @property
    def reached(self) -> np.ndarray:
        """Which images have a misclassified neighbour inside the ball, bool (N,)."""
        return self.best_radius <= self.ball.radius

    def candidates(self, index: np.ndarray) -> np.ndarray:
        """What to ask next: the trial direction at the radius to beat, or at the middle of its bisection."""
        return self._along(index, self.trial[index], self._asked(index))

    def update(self, index: np.ndarray, wrong: np.ndarray) -> None:
        """Take in whether each candidate was misclassified."""
        asked = self._asked(index)
        hit, miss = index[wrong], index[~wrong]
        probing = miss[~self.bisecting[miss]]
        self.high[hit] = asked[wrong]
        self.low[miss] = asked[~wrong]
        self.bisecting[hit] = True
        nearer = hit[asked[wrong] < self.best_radius[hit]]
        self.best[nearer], self.best_radius[nearer] = self.trial[nearer], self.high[nearer]
        done = index[self.bisecting[index] & (self.high[index] - self.low[index] <= self.unit)]
        self.base[done], self.radius[done] = self.trial[done], self.high[done]
        self.fruitless[done] = 0
        self._next(np.concatenate([done, probing]))

    def nearest(self, chosen: np.ndarray) -> np.ndarray:
        """The nearest adversarial image found where it is in reach, the edge of the ball that way where it is not."""
        radius = np.where(chosen, np.minimum(self.best_radius, self.ball.radius), 0)
        return self._along(np.arange(len(radius)), self.best, radius)

    def _asked(self, index: np.ndarray) -> np.ndarray:
        middle = (self.low[index] + self.high[index]) / 2
        if self.unit == 1.0:
            middle = np.floor(middle)
        return np.where(self.bisecting[index], middle, self.high[index])

    def _along(self, index: np.ndarray, signs: np.ndarray, radius: np.ndarray) -> np.ndarray:
        x = self.ball.x[index]
        moved = x + (signs * radius[:, None]).reshape(x.shape).astype(x.dtype)
        return np.clip(moved, 0, self.ball.top)

    def _next(self, index: np.ndarray) -> None:
        """Put the next flip on trial, or a new direction after all flips failed, at the radius to be beaten."""
        size = self.base.shape[1]
        barren = index[self.fruitless[index] == self.flips]
        self.fruitless[index] += 1
        self.block[index] += 1
        over = index[self.block[index] * -(-size // 2 ** self.level[index]) >= size]
        self.level[over] = np.where(2 ** self.level[over] >= size, 0, self.level[over] + 1)
        self.block[over] = 0
        length = -(-size // 2 ** self.level[index])
        start = (self.block[index] * length)[:, None]
        place = np.arange(size)
        flip = (place >= start) & (place < start + length[:, None])
        self.trial[index] = np.where(flip, -self.base[index], self.base[index])
        # A new direction is random signs, itself first on trial; what was nearest so far stays known.
        self.starts[barren] += 1
        signs = np.where(uniform(self.seed, self.ids[barren], self.starts[barren], self.base.shape[1]) < 0.5, -1, 1)
        self.base[barren] = self.trial[barren] = signs
        self.radius[barren], self.level[barren], self.block[barren], self.fruitless[barren] = np.inf, 0, -1, 0
        self.low[index] = 0
        known = np.isfinite(self.radius[index])
        self.high[index] = np.where(known, np.maximum(self.radius[index] - self.unit, 0), self.ball.top)
        self.bisecting[index] = False
