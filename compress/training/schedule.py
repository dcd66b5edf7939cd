"""How the learning rate runs, as a share of its peak."""

import math

from compress.config import Training

#: One-cycle begins at the peak over this and ends at the beginning over that (Smith & Topin 2018, as in PyTorch).
CYCLE_START, CYCLE_END = 25.0, 1e4


def share(config: Training, position: float, total: int) -> float:
    """The share at `position` of `total` steps, by the config's schedule; a position may lie between two steps."""
    if config.schedule == "cosine":
        return rate(position, total, config.warmup)
    if config.schedule == "one-cycle":
        return one_cycle(position, total, config.warmup)
    rise = config.warmup * total
    if position < rise:
        return _rising(position, rise)
    if config.schedule == "linear":
        return (total - position) / max(1.0, total - rise)
    passed = sum(
        position >= milestone * (total if milestone < 1 else total / config.epochs) for milestone in config.milestones
    )
    return config.gamma**passed


def rate(step: float, total: int, warmup: float) -> float:
    """Linear up over `warmup` of all steps, then half a cosine down to 0."""
    rise = warmup * total
    if step < rise:
        return _rising(step, rise)
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1.0, total - rise)))


def one_cycle(step: float, total: int, warmup: float) -> float:
    """Half a cosine from 1/25 up to 1 over `warmup` of all steps, another one down to 1/250,000."""
    top = warmup * total - 1
    if step <= top:
        return _half_cosine(1 / CYCLE_START, 1.0, step / top if top else 1.0)
    start = max(top, 0.0)
    return _half_cosine(1.0, 1 / (CYCLE_START * CYCLE_END), (step - start) / max(1.0, total - 1 - start))


def _rising(step: float, rise: float) -> float:
    return (step + 1) / (rise + 1)


def _half_cosine(begin: float, end: float, way: float) -> float:
    return end + (begin - end) * 0.5 * (1 + math.cos(math.pi * min(way, 1.0)))
