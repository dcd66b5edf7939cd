"""Frames at a fixed rate, each answer timed from the moment at which its frame was due.

One frame may wait while another is worked on; a frame that comes while one waits takes its place, and the older one is
dropped. Latency counts from the scheduled arrival, so a slow answer makes the next ones late too and is not hidden by a
query that was sent later than it should have been.
"""

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from edge.bench.figures import percentiles
from edge.bench.stream import Stream, timed_query
from edge.statement.timing import CameraFigures

RULE = "one frame waits; a newer one replaces it, which drops it; a deadline is the next frame's arrival"
ROUNDING = 1e-6  # a product of two floats that is a whole number of frames, and a hair


@dataclass(frozen=True)
class CameraRun:
    """F frames came, n of them were answered; all times in ns, int64."""

    fps: float
    frames: int  # F
    answered: "npt.NDArray[np.int64]"  # (n,) which frames, ascending
    latency_ns: "npt.NDArray[np.int64]"  # (n,) from the scheduled arrival to the logits
    service_ns: "npt.NDArray[np.int64]"  # (n,) of these the query itself
    preprocess_ns: "npt.NDArray[np.int64]"  # (n,) of that the preprocessing
    late_ns: "npt.NDArray[np.int64]"  # (m,) how late a query began for a frame that was waited for
    span_ns: tuple[int, int]  # first arrival, last answer


def arrivals(fps: float, frames: int, start: int) -> "list[int]":
    """When each frame is due, ns; the period is not rounded, so a long run does not drift."""
    period = Fraction(10**9) / Fraction(fps)
    return [start + int(k * period) for k in range(frames)]


def run_camera(stream: Stream, fps: float, seconds: float) -> CameraRun:
    """`seconds` of frames at `fps`, the first one a period from now, a query of `stream` each."""
    clock, frames = stream.clock, max(2, math.ceil(seconds * fps - ROUNDING))
    due = arrivals(fps, frames, clock.now() + int(1e9 / fps))
    rows: list[tuple[int, int, int, int]] = []
    late: list[int] = []
    batches, at, now = stream.queries.batches, 0, due[0]
    while at < frames:
        waited = clock.now() < due[at]
        if waited:
            clock.until(due[at])
        asked = clock.now()  # the last frame that is there by then is taken, those before it were replaced
        while at + 1 < len(due) and due[at + 1] <= asked:
            at += 1
        frame = batches[at % len(batches)]
        logits, began, ready, now = timed_query(stream.runner, stream.queries, frame, clock)
        stream.kept.offer(frame, logits)
        rows.append((at, now - due[at], now - began, ready - began))
        if waited:
            late.append(began - due[at])
        at += 1
    answered, latency, service, before = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    woken = np.array(late, np.int64)
    return CameraRun(fps, frames, answered, latency, service, before, woken, (due[0], now))


def camera_figures(shot: CameraRun) -> CameraFigures:
    """What a statement says of it."""
    deadline_ms, ms = 1000 / shot.fps, shot.latency_ns / 1e6
    on_time = int((ms <= deadline_ms).sum())
    return CameraFigures(
        **percentiles(shot.latency_ns),
        fps=shot.fps,
        frames=shot.frames,
        answered=len(ms),
        dropped=shot.frames - len(ms),
        missed=len(ms) - on_time,
        on_time=on_time / shot.frames,
        deadline_ms=deadline_ms,
        rule=RULE,
        max_ms=float(ms.max()),
        service_p50_ms=float(np.percentile(shot.service_ns, 50)) / 1e6,
        jitter_ms=float(np.abs(np.diff(ms)).mean()) if len(ms) > 1 else 0.0,
        wake_p99_ms=float(np.percentile(shot.late_ns, 99)) / 1e6 if len(shot.late_ns) else None,
    )
