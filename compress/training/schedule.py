"""How the learning rate runs, as a share of its peak, and how far it is when time is limited."""

import math
import time

from compress.config import Training
from compress.numerics import ranks
from edge.core.errors import CompressError

#: So many steps are timed before a budget is judged; the first is not counted, it warms up.
TIMED_STEPS = 5


class Clock:
    """Time spent on training by this process and by those before it, and how much of a budget (s) is left.

    `reserve` is what the validation that comes last will take, in seconds.
    """

    def __init__(self, budget: "float | None", spent: float) -> None:
        self.budget, self.reserve = budget, 0.0
        self._before, self._began = spent, time.monotonic()

    def spent(self) -> float:
        """Seconds so far, the same on every rank."""
        return ranks.largest(self._before + time.monotonic() - self._began)

    def position(self, done: int, total: int) -> float:
        """Where the schedule stands, in steps of `total`: by time where that is further than by steps `done`."""
        if self.budget is None:
            return done
        return min(max(done, self.spent() / max(self.budget - self.reserve, 1e-9) * total), total)

    def left(self) -> "float | None":
        """Seconds until the budget is used up, at least 0; None without one."""
        return None if self.budget is None else max(self.budget - self.spent(), 0.0)

    def over(self) -> bool:
        """Whether it is time to validate and end."""
        return self.budget is not None and self.spent() >= self.budget - self.reserve

    def judge(self, step_s: float, steps: int) -> None:
        """CompressError when not even one epoch, `steps` of `step_s` seconds and its validation, fits."""
        need = step_s * steps + self.reserve
        if self.budget is not None and need > self.budget:
            raise CompressError(
                f"budget {self.budget:g}s: one epoch takes about {need:.0f} s here ({steps} steps, its validation "
                f"{self.reserve:.0f} s); give at least {int(need * 1.1) + 1}s, a smaller model or fewer attack.steps"
            )


#: One-cycle begins at the peak over this and ends at the beginning over that (Smith & Topin 2018, as in PyTorch).
CYCLE_START, CYCLE_END = 25.0, 1e4


def reached(begin: float, position: float, total: int) -> bool:
    """Whether the share `begin` of `total` steps is done; to half a step, since 0.07 · 100 is more than 7 in floats."""
    return position + 0.5 >= begin * total


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
