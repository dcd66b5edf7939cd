"""Training against the clock: the schedule is complete when the time is up."""

import time

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
