"""What is asked of a measurement, as `compress.config.Latency` describes it."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

SINGLE, OFFLINE, CAMERA = "single-stream", "offline", "camera"


@dataclass(frozen=True)
class Ask:
    """Single-stream and camera take `batch_size` images a query, offline the largest size that is named."""

    batch_size: int
    warmup: int  # untimed queries first
    samples: int  # timed queries, at least
    scenarios: "tuple[str, ...]" = (SINGLE,)
    min_seconds: float = 0.0  # of single-stream
    seconds: float = 5.0  # of offline, of each rate of camera, of each size of the sweep
    fps: "tuple[float, ...]" = (30.0,)
    sweep: "tuple[int, ...]" = ()
    load: "str | None" = None  # N busy processes, or a command
    seed: int = 0  # which answers are asked again

    @classmethod
    def read(cls, latency: Mapping[str, Any], seed: int = 0) -> "Ask":
        """From a config's section; a key that it lacks has the default above."""
        known = {field.name for field in fields(cls)} - {"seed"}
        given: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in latency.items() if key in known
        }
        return cls(**given, seed=seed)

    def with_single(self) -> "Ask":
        """The same with single-stream among its scenarios."""
        return self if SINGLE in self.scenarios else replace(self, scenarios=(SINGLE, *self.scenarios))

    @property
    def offline_size(self) -> int:
        return max(self.batch_size, *self.sweep, 1)

    @property
    def further_sizes(self) -> list[int]:
        """Batch sizes that a runner of their own is opened for."""
        asked = [*self.sweep, *([self.offline_size] if OFFLINE in self.scenarios else [])]
        return sorted(set(asked))
