"""What a statement says of time: a query's latency, throughput at a batch size, a camera's frames, and the conditions.

Times are in ms, their percentiles by linear interpolation over raw samples that are kept beside the statement.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: A field that the JSON leaves out where it is None.
ABSENT = {"absent": True}


@dataclass(frozen=True)
class BriefTimes:
    """Median and 99th percentile."""

    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, kw_only=True)
class QueryTimes:
    """Four percentiles, and that of 1 in 1,000 where there are samples enough for it."""

    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    p999_ms: "float | None" = field(default=None, metadata=ABSENT)


@dataclass(frozen=True, kw_only=True)
class Throughput(BriefTimes):
    """Queries of one batch size, one after another: images a second over all `seconds`, and what a query took."""

    batch_size: int
    n: int
    seconds: float
    images_per_s: float


@dataclass(frozen=True, kw_only=True)
class CameraFigures(QueryTimes):
    """A camera's frames at `fps`, timed from their scheduled arrival; shares and counts are of all frames that came.

    `jitter_ms` is the mean change of latency from one answer to the next, `wake_p99_ms` the harness's own lateness.
    """

    fps: float
    frames: int
    answered: int
    dropped: int
    missed: int
    on_time: float
    deadline_ms: float
    rule: str
    max_ms: float
    service_p50_ms: float
    jitter_ms: float
    wake_p99_ms: "float | None"


@dataclass(frozen=True)
class QueryParts:
    """Medians over `n` queries of what a query consists of: copy in, execution, copy out, the rest on the host."""

    n: int
    h2d_ms: float
    compute_ms: float
    d2h_ms: float
    host_ms: float
    total_ms: float


@dataclass(frozen=True)
class TimingConditions:
    """How it was timed; `load` is what ran beside it, `turns` how often several artifacts took turns."""

    clock: str
    garbage_collector: str
    affinity: "list[int] | None"
    wait: str
    cuda_graph: bool
    spin_wait: "bool | None"
    load: "Mapping[str, Any] | None" = None
    turns: "int | None" = None


@dataclass(frozen=True)
class PeakMemory:
    """The most that the process held, `artifacts` of them inside, and what the runtime holds on the device."""

    peak_rss_bytes: int
    since: str
    artifacts: int = 1
    gpu_bytes: "int | None" = field(default=None, metadata=ABSENT)


@dataclass(frozen=True)
class AskedAgain:
    """Timed answers that were computed once more, and how many came out different."""

    n: int
    different: int


@dataclass(frozen=True, kw_only=True)
class TimingFigures:
    """What was measured of one artifact besides single queries. `sweep` by batch size, `offline` at the largest."""

    batch_size: int
    cold_start_ms: float
    first_inference_ms: float
    warmup: int
    conditions: TimingConditions
    preprocess_ms: "BriefTimes | None" = field(default=None, metadata=ABSENT)
    parts: "QueryParts | None" = field(default=None, metadata=ABSENT)
    camera: "list[CameraFigures] | None" = field(default=None, metadata=ABSENT)
    asked_again: AskedAgain = AskedAgain(0, 0)
    sweep: "list[Throughput] | None" = field(default=None, metadata=ABSENT)
    offline: "Throughput | None" = field(default=None, metadata=ABSENT)
    memory: "PeakMemory | None" = field(default=None, metadata=ABSENT)
    scenarios: "list[str]" = field(default_factory=list)

    @property
    def spread(self) -> "float | None":
        """The coefficient of variation of single queries, where these were timed."""
        return None


@dataclass(frozen=True, kw_only=True)
class LatencyFigures(TimingFigures, QueryTimes):
    """Single queries of `batch_size` images, `n` of them, one after another; `inside` says what the time holds."""

    n: int
    inside: str
    mean_ms: float
    min_ms: float
    max_ms: float
    cv: float
    images_per_s: float

    @property
    def spread(self) -> float:
        return self.cv
