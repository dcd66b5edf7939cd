"""Latency of single queries: raw samples kept, warm-up apart, copies inside the interval."""

import time
from typing import Any

import numpy as np

from edge.progress import Progress
from edge.runner import Runner

INSIDE = "one call of infer on uint8 images: check, conversion to float32 in [0, 1], copy in, execution, copy out"
PERCENTILES = (50, 90, 95, 99)
P999_FROM = 5000


def latency(runner: Runner, images: np.ndarray, *, warmup: int, samples: int) -> tuple[np.ndarray, float]:
    """`samples` timed calls of the runner, in ns (int64), and the first call's time in ms.

    One call takes the batch size that the runner was opened with. `images` uint8 (N,C,H,W), as a device receives them,
    are used in turn. The first call is neither warm-up nor sample.
    """
    size = runner.batch_size
    batches = [np.resize(images[i : i + size], (size, *images.shape[1:])) for i in range(0, len(images), size)]
    first_ms = _timed(runner, batches[0]) / 1e6
    for i in range(warmup):
        runner.infer(batches[i % len(batches)])
    taken = np.empty(samples, np.int64)
    with Progress("latency", samples) as bar:
        for i in range(samples):
            taken[i] = _timed(runner, batches[i % len(batches)])
            if i % 100 == 99 or i == samples - 1:
                bar.step(i % 100 + 1)
    return taken, first_ms


def _timed(runner: Runner, batch: np.ndarray) -> int:
    began = time.perf_counter_ns()
    runner.infer(batch)
    return time.perf_counter_ns() - began


def summary(
    samples_ns: np.ndarray, *, batch_size: int, warmup: int, cold_start_ms: float, first_ms: float
) -> dict[str, Any]:
    """Percentiles (linear interpolation) and spread of the samples, in ms; p99.9 only from 5,000 samples."""
    ms = samples_ns / 1e6
    percentiles = {f"p{p}_ms": float(np.percentile(ms, p)) for p in PERCENTILES}
    if len(ms) >= P999_FROM:
        percentiles["p999_ms"] = float(np.percentile(ms, 99.9))
    return {
        "batch_size": batch_size,
        "n": len(ms),
        "inside": INSIDE,
        **percentiles,
        "mean_ms": float(ms.mean()),
        "min_ms": float(ms.min()),
        "max_ms": float(ms.max()),
        "cv": float(ms.std() / ms.mean()),
        "images_per_s": batch_size * 1000 / float(ms.mean()),
        "cold_start_ms": cold_start_ms,
        "first_inference_ms": first_ms,
        "warmup": warmup,
    }
