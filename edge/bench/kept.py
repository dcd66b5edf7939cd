"""Answers kept while time is taken, to be asked again afterwards: an answer that timing changes is no answer."""

import math
import random
from typing import Any

import numpy as np
import numpy.typing as npt

MOST = 32


class Kept:
    """A uniform sample of at most `most` offered answers; one offer costs a comparison (Li 1994, algorithm L)."""

    def __init__(self, seed: int = 0, most: int = MOST) -> None:
        self._draw, self._most = random.Random(seed), most
        self._seen, self._due, self._weight = 0, 0, 1.0
        self.held: list[tuple[Any, npt.NDArray[np.float32]]] = []  # the query's frames, its logits

    def offer(self, frames: Any, logits: "npt.NDArray[np.float32]") -> None:
        """One more answer; a copy of its logits is kept or not."""
        number = self._seen
        self._seen += 1
        if number < self._due:
            return
        if len(self.held) < self._most:
            self.held.append((frames, logits.copy()))
            self._due += 1
            if len(self.held) == self._most:
                self._skip()
            return
        self.held[self._draw.randrange(self._most)] = (frames, logits.copy())
        self._due += 1
        self._skip()

    def _skip(self) -> None:
        """Set how many offers pass before the next one is kept."""
        self._weight *= math.exp(math.log(1 - self._draw.random()) / self._most)
        self._due += math.floor(math.log(1 - self._draw.random()) / math.log1p(-self._weight))


def alarm(n: int, different: int) -> dict[str, Any]:
    """A row of the statement's alarms: answers during timing that were not the same bits when asked again."""
    return {
        "name": "timed logits differ",
        "fired": different > 0,
        "count": different,
        "threshold": 0,
        "interval": None,
        "meaning": f"{different} of {n} queries sampled during timing got other logits when asked again untimed",
    }
