"""The Square attack, L∞ (Andriushchenko et al. 2020): random search with squares that shrink; scores, no gradients."""

import math
import time

import numpy as np

from edge.attacks import checks
from edge.attacks.search import Ball, Infer, QueryAttackResult, uniform, whose_turn
from edge.core.progress import Progress

P_INIT = 0.8
#: (share of the query budget, divisor of p): the paper's schedule for 10,000 queries
SCHEDULE = (
    (0.001, 1),
    (0.005, 2),
    (0.02, 4),
    (0.05, 8),
    (0.1, 16),
    (0.2, 32),
    (0.4, 64),
    (0.6, 128),
    (0.8, 256),
    (1.0, 512),
)


def square(
    infer: Infer,
    x: np.ndarray,
    y: np.ndarray,
    *,
    eps: float,
    queries: int,
    seed: int,
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
    margin = _margin(infer(x), y)
    best, spent = ball.x.copy(), np.ones(len(x), np.int64)
    sides = np.array([side(query, queries, *x.shape[2:]) for query in range(queries)], np.int64)
    active = np.flatnonzero(margin > 0) if queries > 1 else np.arange(0)
    with Progress("square", len(active) * (queries - 1)) as bar:
        while len(active) and time.monotonic() < deadline:
            now = whose_turn(active, spent, batch_size)
            moved = _candidates(ball.of(now), best[now], seed, ids[now], spent[now], sides)
            reached = _margin(infer(ball.images(moved)), y[now])
            better = (reached < margin[now]) | (spent[now] == 1)  # the first is where the search starts
            best[now[better]], margin[now[better]] = moved[better], reached[better]
            spent[now] += 1
            active = active[(margin[active] > 0) & (spent[active] < queries)]
            fallen = now[margin[now] <= 0]
            bar.step(len(now) + int((queries - spent[fallen]).sum()), note=f"{int((margin > 0).sum())} images stand")
    return QueryAttackResult(ball.images(best), margin <= 0, spent)


def side(query: int, queries: int, height: int, width: int) -> int:
    """Side of the square in pixels at one query of the budget."""
    share = query / queries
    divisor = next(divisor for upto, divisor in SCHEDULE if share <= upto)
    return max(1, min(round(math.sqrt(P_INIT / divisor * height * width)), height, width))


def _candidates(
    ball: Ball, best: np.ndarray, seed: int, ids: np.ndarray, query: np.ndarray, sides: np.ndarray
) -> np.ndarray:
    """What each image is asked at its own `query` (N,): stripes first, squares on the best so far afterwards."""
    moved = np.empty_like(best)
    first = query == 1
    for chosen, make in ((first, _stripes), (~first, _squares)):
        if chosen.any():
            moved[chosen] = make(ball.of(chosen), best[chosen], seed, ids[chosen], query[chosen], sides)
    return moved


def _stripes(
    ball: Ball, best: np.ndarray, seed: int, ids: np.ndarray, query: np.ndarray, sides: np.ndarray
) -> np.ndarray:
    """The start: vertical stripes of ±radius, a sign for each channel and column."""
    n, channels, _, width = ball.x.shape
    signs = np.where(uniform(seed, ids, query, channels * width) < 0.5, -1, 1).reshape(n, channels, 1, width)
    return ball.project(ball.x + _as(ball, ball.radius * signs))


def _squares(
    ball: Ball, best: np.ndarray, seed: int, ids: np.ndarray, query: np.ndarray, sides: np.ndarray
) -> np.ndarray:
    """The best so far with one square of each image pushed to one end of the ball, a sign for each channel.

    Where that changes nothing the signs are turned round: every query asks something else than the best.
    """
    _, channels, height, width = ball.x.shape
    size = sides[query][:, None]
    draws = uniform(seed, ids, query, 2 + channels)
    top = (draws[:, :1] * (height - size + 1)).astype(int)
    left = (draws[:, 1:2] * (width - size + 1)).astype(int)
    signs = np.where(draws[:, 2:] < 0.5, -1, 1)[:, :, None, None]
    rows = (np.arange(height) >= top) & (np.arange(height) < top + size)
    columns = (np.arange(width) >= left) & (np.arange(width) < left + size)
    window = (rows[:, :, None] & columns[:, None, :])[:, None]
    step = _as(ball, np.where(window, 2 * ball.radius * signs, 0))
    moved = ball.project(best + step)
    same = (moved == best).all((1, 2, 3))
    if same.any():
        moved[same] = ball.of(same).project(best[same] - step[same])
    return moved


def _as(ball: Ball, values: np.ndarray) -> np.ndarray:
    return values.astype(ball.x.dtype)


def _margin(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    """True logit minus the largest wrong one; ≤ 0 only where the prediction is wrong. float64 (N,)."""
    scores = logits.astype(np.float64)
    rows = np.arange(len(y))
    true = scores[rows, y]
    scores[rows, y] = -np.inf
    margin = true - scores.max(1)
    # where it says nothing, in a tie or of what is no number, the verdict does
    undecided = np.where(checks.wrong(logits, y), -np.inf, np.finfo(np.float64).tiny)
    return np.where((margin == 0) | np.isnan(margin), undecided, margin)
