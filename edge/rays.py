"""RayS, L∞ (Chen & Gu 2020): the nearest decision boundary along sign directions, from predicted labels alone.

A direction is a sign for every pixel. Blocks of signs, halved level by level, are flipped one after another; a flip
is kept when the boundary lies nearer that way, which a bisection measures.
"""

import numpy as np

from edge.ball import Ball, Found, Infer
from edge.progress import Progress

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
) -> Found:
    """Search for misclassified images within eps of x (N,C,H,W), labels y (N,), `queries` calls an image at most.

    Nothing is random: `seed` and `ids` are accepted to be called like the other attacks. uint8 images stay on the grid.
    """
    ball = Ball.around(x, eps)
    right = infer(x).argmax(1) == y
    state = _State(ball, y)
    spent = np.ones(len(x), np.int64)
    active = np.flatnonzero(right)
    with Progress("rays", queries) as bar:
        for _ in range(1, queries):
            if len(active) == 0:
                break
            answer = infer(ball.images(state.candidates(active))).argmax(1) != y[active]
            spent[active] += 1
            state.update(active, answer)
            active = active[state.radius[active] > ball.radius]
            bar.step(1, note=f"{len(active)} images stand")
    reached = right & (state.radius <= ball.radius)
    return Found(ball.images(state.closest(right)), ~right | reached, spent)


class _State:
    """Per image: the best direction and its radius, the direction on trial, and the bisection on it."""

    def __init__(self, ball: Ball, y: np.ndarray) -> None:
        self.ball = ball
        n, size = len(y), int(np.prod(ball.x.shape[1:]))
        self.best = np.ones((n, size), np.int8)
        self.radius = np.full(n, np.inf)
        self.level, self.block = np.zeros(n, np.int64), np.full(n, -1, np.int64)
        self.trial = self.best.copy()  # first, the direction itself, then its flips
        self.low, self.high = np.zeros(n), np.full(n, ball.top, float)
        self.bisecting = np.zeros(n, bool)
        self.unit = 1.0 if ball.dtype == np.uint8 else FLOAT_TOLERANCE

    def candidates(self, index: np.ndarray) -> np.ndarray:
        """What to ask next: the trial direction at the best radius, or at the middle of its bisection."""
        return self._along(index, self.trial[index], self._asked(index))

    def update(self, index: np.ndarray, wrong: np.ndarray) -> None:
        """Take in whether each candidate was misclassified."""
        asked = self._asked(index)
        probing = ~self.bisecting[index]
        hit, miss = index[wrong], index[~wrong]
        self.high[hit] = asked[wrong]
        self.low[miss] = np.where(probing[~wrong], self.low[miss], asked[~wrong])
        self.bisecting[index[probing & wrong]] = True
        done = self.bisecting[index] & (self.high[index] - self.low[index] <= self.unit)
        won = index[done]
        self.best[won], self.radius[won] = self.trial[won], self.high[won]
        self._next(np.concatenate([won, index[probing & ~wrong]]))

    def closest(self, chosen: np.ndarray) -> np.ndarray:
        """The nearest adversarial image found where it is in reach, the edge of the ball that way where it is not."""
        radius = np.where(chosen, np.minimum(self.radius, self.ball.radius), 0)
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
        """Flip the next block of each image's best direction, at the radius that must be beaten."""
        size = self.best.shape[1]
        self.block[index] += 1
        blocks = 2 ** self.level[index]
        length = -(-size // blocks)
        over = (self.block[index] >= blocks) | (self.block[index] * length >= size)
        deeper = index[over]
        self.level[deeper] = np.where(2 ** self.level[deeper] >= size, 0, self.level[deeper] + 1)
        self.block[deeper] = 0
        length = -(-size // 2 ** self.level[index])
        start = (self.block[index] * length)[:, None]
        place = np.arange(size)
        flip = (place >= start) & (place < start + length[:, None])
        self.trial[index] = np.where(flip, -self.best[index], self.best[index])
        self.low[index] = 0
        known = np.isfinite(self.radius[index])
        self.high[index] = np.where(known, self.radius[index] - self.unit * (self.unit == 1.0), self.ball.top)
        self.bisecting[index] = False
