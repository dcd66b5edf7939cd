"""Which range a quantizer gets: the value that its highest level stands for, from what was seen.

Of activations a histogram of magnitudes is kept, so that memory does not grow with the number of images.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

BINS = 8192
ENTROPY_BINS = 2048
#: Shares of the largest value that a search by mean squared error tries.
SHARES = tuple(round(0.01 * k, 2) for k in range(20, 101))


@dataclass
class Histogram:
    """Counts of |x| in `BINS` bins of equal width over [0, top]; what lies above counts in the last."""

    top: float

    def __post_init__(self) -> None:
        self.counts = np.zeros(BINS, np.int64)

    def add(self, x: Tensor) -> None:
        """x of any shape."""
        index = (x.detach().abs().flatten() * (BINS / self.top)).to(torch.int64).clamp_(max=BINS - 1)
        self.counts += torch.bincount(index, minlength=BINS).cpu().numpy()

    @property
    def width(self) -> float:
        return self.top / BINS


def percentile(seen: Histogram, percent: float) -> float:
    """The upper end of the bin below which, its own values included, lie at least `percent` of all values."""
    reached = np.cumsum(seen.counts) >= math.ceil(seen.counts.sum() * percent / 100)
    return float((int(np.argmax(reached)) + 1) * seen.width)


def mse(seen: Histogram, highest: int) -> float:
    """Of `SHARES` of the largest value the one of least mean squared rounding and clipping error, the larger of equals.

    Levels 0…highest; a bin's values stand at its middle, the first bin's at 0, where zeros are.
    """
    middles = (np.arange(BINS) + 0.5) * seen.width
    middles[0] = 0.0
    errors = []
    for share in SHARES:
        scale = share * seen.top / highest
        kept = np.minimum(np.rint(middles / scale), highest) * scale
        errors.append(float((seen.counts * (middles - kept) ** 2).sum()))
    return _least(errors) * seen.top


def entropy(seen: Histogram, levels: int) -> float:
    """Of the ends of `ENTROPY_BINS` bins the one whose `levels` levels lose least: KL(P ‖ Q) (Migacz, GTC 2017).

    P: the counts up to that end, what lies above added to the last bin. Q: the same bins without what lies above,
    joined into `levels` groups, each group's count spread evenly over its bins that are not empty. The first bin counts
    as the second: it holds the zeros of ReLU, which every grid keeps.
    """
    counts = seen.counts.reshape(ENTROPY_BINS, -1).sum(1).astype(np.float64)
    counts[0] = counts[1]
    total, last = counts.sum(), int(np.flatnonzero(counts)[-1]) + 1 if counts.any() else ENTROPY_BINS
    if last <= levels:
        return seen.top
    best, end = math.inf, last
    for stop in range(levels, last + 1):
        lost = _divergence(counts[:stop], total - counts[:stop].sum(), levels)
        if lost <= best:  # of equals the wider
            best, end = lost, stop
    return float(end * seen.top / ENTROPY_BINS)


def _divergence(inside: np.ndarray, outside: float, levels: int) -> float:
    """KL(P ‖ Q) in nats of the bins kept, both normalised; infinite where P has values in a bin that Q leaves empty."""
    group = np.arange(len(inside)) * levels // len(inside)
    filled = inside > 0
    sums = np.bincount(group, inside, levels)
    sharing = np.bincount(group, filled, levels)
    spread = np.where(filled, (sums / np.maximum(sharing, 1))[group], 0.0)
    reference = inside.copy()
    reference[-1] += outside
    if np.any((reference > 0) & (spread == 0)):
        return math.inf
    p, q = reference[filled] / reference.sum(), spread[filled] / spread.sum()
    return float((p * np.log(p / q)).sum())


def mse_by_channel(weight: Tensor, top: Tensor, highest: int) -> Tensor:
    """As `mse`, for each channel of weights (channels,…) with largest magnitudes `top` (channels,), exactly."""
    rows = weight.detach().flatten(1)
    errors = []
    for share in SHARES:
        scale = (share * top / highest)[:, None]
        kept = (rows / scale).round_().clamp_(-highest - 1, highest).mul_(scale)
        errors.append((rows - kept).square_().sum(1))
    table = torch.stack(errors).flip(0)  # of equals the first: the largest share
    shares = torch.tensor(SHARES, dtype=top.dtype, device=top.device).flip(0)
    return shares[table.argmin(0)] * top


def _least(errors: list[float]) -> float:
    """The share of the smallest error, of equals the largest."""
    return SHARES[len(errors) - 1 - int(np.argmin(errors[::-1]))]
