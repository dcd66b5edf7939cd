"""Everything that is timed of one artifact, or of several in turns: what a statement says, and the raw samples.

Single-stream, offline and camera follow MLPerf's scenarios in what they measure, unofficially: no result here is an
MLPerf result.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from edge.bench import camera, figures, harness
from edge.bench.figures import PairedTurns
from edge.bench.harness import TimingClock, peak_memory, quiet_harness, reset_peak_memory, timing_conditions
from edge.bench.stream import KeptAnswers, Queries, Stream, query_parts, timed_logits_alarm
from edge.core.errors import CompressError
from edge.core.progress import Progress, say
from edge.runtimes.preprocess import Preprocess
from edge.runtimes.runner import Runner
from edge.statement.statement import Alarm
from edge.statement.timing import AskedAgain, BriefTimes, TimingFigures

SINGLE, OFFLINE, CAMERA = "single-stream", "offline", "camera"


@dataclass(frozen=True)
class TimingRequest:
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
    def read(cls, latency: Mapping[str, Any], seed: int = 0) -> "TimingRequest":
        """From a config's section; a key that it lacks has the default above."""
        known = {field.name for field in fields(cls)} - {"seed"}
        settings: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in latency.items() if key in known
        }
        return cls(**settings, seed=seed)

    def with_single(self) -> "TimingRequest":
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


CALL = "check, conversion to float32 in [0, 1], copy in, execution, copy out"
INSIDE = f"one call of infer on uint8 images: {CALL}"
BRIEF_WARM_UP_S = 1.0  # of what runs for a given time: no longer than this is spent warming up
ROUNDS = 20  # turns that several artifacts take
AGAIN = 3  # untimed queries at the beginning of a turn


@dataclass(frozen=True)
class TimingSubject:
    """An artifact: how it is opened at a batch size, and the frames that its queries take, N of them."""

    name: str
    open: Callable[[int], Runner]
    frames: Callable[[Runner], Any]
    preprocess: "Preprocess | None" = None


@dataclass
class Timed:
    """What was found of one artifact."""

    name: str
    latency: TimingFigures  # `LatencyFigures` once single queries were timed
    about: dict[str, Any] = field(default_factory=dict)  # {"sha256", "runtime"}: what was executed by what
    samples: dict[str, Any] = field(default_factory=dict)  # raw arrays, int64 ns
    spans: dict[str, tuple[int, int, int]] = field(default_factory=dict)  # what → ns on the clock, images
    rounds: dict[str, "list[float]"] = field(default_factory=dict)  # what → a median ms or a rate, a turn each
    alarm: "Alarm | None" = None  # answers that timing changed


def check_timing(subjects: Sequence[TimingSubject], ask: TimingRequest) -> None:
    """Whether all of it can run, before anything long does: load, preprocessing, every batch size."""
    harness.check_load(ask.load)
    for subject in subjects:
        if subject.preprocess is not None:
            with subject.open(ask.batch_size) as runner:
                subject.preprocess.checked(subject.frames(runner)[: runner.batch_size], runner.input_shape)
        for size in ask.further_sizes:
            with subject.open(size) as runner:
                _same_size(subject, runner, size)


def measure_latency(
    subjects: Sequence[TimingSubject], ask: TimingRequest, clock: "TimingClock | None" = None
) -> list[Timed]:
    """What is asked of every subject; several take turns, so that the machine's mood is shared out among them."""
    clock = clock or TimingClock()
    reset = reset_peak_memory()
    turns = ROUNDS if len(subjects) > 1 else None
    device_memory = []  # of each artifact, where its runner knows it
    # what a user's pipeline prints is no result
    with contextlib.redirect_stdout(sys.stderr), harness.load_running(ask.load) as beside:
        with _opened(subjects, ask.batch_size, ask, clock) as streams:
            timings = [
                _warmed(subject.name, stream, ask, beside, turns)
                for subject, stream in zip(subjects, streams, strict=True)
            ]
            _single(timings, streams, ask)
            for timed, stream in zip(timings, streams, strict=True):
                _camera(timed, stream, ask)
                _ask_again(timed, stream)
                device_memory.append(stream.runner.describe().get("device_memory_bytes"))
        for size in ask.further_sizes:
            _sized(timings, subjects, size, ask, clock)
    for timed, gpu_bytes in zip(timings, device_memory, strict=True):
        memory = replace(peak_memory(reset), artifacts=len(timings), gpu_bytes=gpu_bytes)
        timed.latency = replace(timed.latency, memory=memory)
    return timings


def _warmed(name: str, stream: Stream, ask: TimingRequest, beside: Any, turns: "int | None") -> Timed:
    """First query and warm-up, each its own; what the timed queries then find."""
    runner, first_ms = stream.runner, stream.first()
    described = runner.describe()
    conditions = timing_conditions(cuda_graph=bool(described.get("cuda_graph", False)), spin_wait=runner.spin_wait)
    opened = TimingFigures(
        batch_size=runner.batch_size,
        cold_start_ms=runner.open_ms,
        first_inference_ms=first_ms,
        warmup=stream.warm(ask.warmup),
        conditions=replace(conditions, load=beside, turns=turns),
        scenarios=[scenario for scenario in (SINGLE, OFFLINE, CAMERA) if scenario in ask.scenarios],
    )
    return Timed(name, opened, {"sha256": runner.sha256, "runtime": described})


def _ask_again(timed: Timed, stream: Stream) -> None:
    """The kept answers once more, counted with those of the batch sizes before."""
    n, different = stream.differing()
    before = timed.latency.asked_again
    again = AskedAgain(before.n + n, before.different + different)
    timed.latency = replace(timed.latency, asked_again=again)
    timed.alarm = timed_logits_alarm(again.n, again.different)


# -------------------------------------------------------------------------------------------- one batch size


@contextlib.contextmanager
def _opened(
    subjects: Sequence[TimingSubject], size: int, ask: TimingRequest, clock: TimingClock
) -> "Iterator[list[Stream]]":
    """A stream of every subject, its runner open."""
    with contextlib.ExitStack() as stack:
        streams = []
        for subject in subjects:
            runner = stack.enter_context(subject.open(size))
            queries = Queries(subject.frames(runner), runner.batch_size, subject.preprocess)
            if subject.preprocess is not None:
                for frames in queries.batches:
                    subject.preprocess.checked(frames, runner.input_shape)
            streams.append(Stream(runner, queries, KeptAnswers(ask.seed), clock))
        yield streams


def _single(timings: Sequence[Timed], streams: Sequence[Stream], ask: TimingRequest) -> None:
    """One query after another; several artifacts in turns, in the other order every second turn."""
    if SINGLE not in ask.scenarios:
        return
    rounds = ROUNDS if len(streams) > 1 else 1
    queries = -(-ask.samples // rounds)
    with Progress("latency", queries * rounds * len(streams)) as bar, quiet_harness():
        for place in _turns(len(streams), rounds):
            if rounds > 1:
                streams[place].warm(AGAIN)
            taken = streams[place].run(queries, ask.min_seconds / rounds, bar)
            timings[place].rounds.setdefault(SINGLE, []).append(float(np.median(taken)) / 1e6)
    for timed, stream in zip(timings, streams, strict=True):
        _summarise(timed, stream)


def _summarise(timed: Timed, stream: Stream) -> None:
    pre = stream.queries.preprocess
    inside = INSIDE if pre is None else f"{pre.name} on the camera's frames, one call of infer on what it gives: {CALL}"
    timed.samples["samples_ns"] = stream.samples_ns
    timed.spans[SINGLE] = _span(stream)
    preprocess_ms = None
    if pre is not None:
        timed.samples["preprocess_ns"] = stream.preprocess_ns
        preprocess_ms = BriefTimes(**figures.percentiles(stream.preprocess_ns, figures.BRIEF))
    opened = replace(timed.latency, preprocess_ms=preprocess_ms, parts=query_parts(stream))
    timed.latency = figures.latency_summary(stream.samples_ns, inside, opened)


def _camera(timed: Timed, stream: Stream, ask: TimingRequest) -> None:
    if CAMERA not in ask.scenarios:
        return
    shots = []
    for fps in ask.fps:
        say(f"camera at {fps:g} frames/s for {ask.seconds:g} s")
        with quiet_harness():
            shots.append(camera.run_camera(stream, fps, ask.seconds))
        name = f"camera_{fps:g}"
        timed.samples |= {f"{name}_frame": shots[-1].answered, f"{name}_ns": shots[-1].latency_ns}
        timed.spans[f"{CAMERA} {fps:g}"] = (*shots[-1].span_ns, len(shots[-1].answered) * stream.runner.batch_size)
    timed.latency = replace(timed.latency, camera=[camera.camera_figures(shot) for shot in shots])


# -------------------------------------------------------------------------------------------- further batch sizes


def _sized(
    timings: Sequence[Timed], subjects: Sequence[TimingSubject], size: int, ask: TimingRequest, clock: TimingClock
) -> None:
    """Throughput and latency at one further size: a row of the sweep, and offline at the largest."""
    rounds = ROUNDS if len(subjects) > 1 else 1
    with _opened(subjects, size, ask, clock) as streams:
        for subject, stream in zip(subjects, streams, strict=True):
            _same_size(subject, stream.runner, size)
            stream.first()
            stream.warm(max(1, ask.warmup), BRIEF_WARM_UP_S)
        with Progress(f"batches of {size}", rounds * len(streams)) as bar, quiet_harness():
            for place in _turns(len(streams), rounds):
                if rounds > 1:
                    streams[place].warm(AGAIN, BRIEF_WARM_UP_S / rounds)
                taken = streams[place].run(1, ask.seconds / rounds)
                timings[place].rounds.setdefault(f"batch {size}", []).append(float(np.median(taken)) / 1e6)
                bar.step()
        for timed, stream in zip(timings, streams, strict=True):
            row = figures.throughput(stream.samples_ns, stream.wall_ns, size)
            _ask_again(timed, stream)
            timed.samples[f"batch_{size}_ns"] = stream.samples_ns
            timed.spans[f"batch {size}"] = _span(stream)
            if size in ask.sweep:
                timed.latency = replace(timed.latency, sweep=[*(timed.latency.sweep or []), row])
            if OFFLINE in ask.scenarios and size == ask.offline_size:
                timed.latency = replace(timed.latency, offline=row)


def _same_size(subject: TimingSubject, runner: Runner, size: int) -> None:
    if runner.batch_size != size:
        raise CompressError(
            f"{subject.name}: takes batches of {runner.batch_size}, asked to be timed at {size}; "
            f"name {runner.batch_size}, or export it for a range that holds {size}"
        )


def _turns(subjects: int, rounds: int) -> "Iterator[int]":
    """Places in the order in which they are measured: forwards, backwards, forwards, …"""
    for turn in range(rounds):
        yield from range(subjects) if turn % 2 == 0 else reversed(range(subjects))


def _span(stream: Stream) -> tuple[int, int, int]:
    """Beginning and end of all runs, and the images of them."""
    images = sum(queries for _, _, queries in stream.runs) * stream.runner.batch_size
    return stream.runs[0][0], stream.runs[-1][1], images


def compare_timings(timings: Sequence[Timed], seed: int = 0) -> list[dict[str, Any]]:
    """Every artifact but the first against it, by what was measured: ratio of medians with its interval."""
    first = timings[0]

    def row(other: Timed, what: str) -> dict[str, Any]:
        rounds = PairedTurns(other.rounds[what], first.rounds[what])
        return {"name": other.name, "to": first.name, "what": what, **rounds.ratio(seed)}

    return [row(other, what) for other in timings[1:] for what in first.rounds]
