"""Latency: how often the runner is called, with what, and the numbers made of the samples."""

import math
from typing import Any

import numpy as np
import pytest

from edge import bench
from edge.runner import Runner


class Counted(Runner):
    """Notes every call of infer; its own clock is moved on by what the call is told to take."""

    input_shape, classes = (1, 2, 2), 2

    def __init__(self, batch_size: int) -> None:
        self.batch_size, self.asked = batch_size, list[np.ndarray]()

    def infer(self, x: np.ndarray) -> np.ndarray:
        self.asked.append(x)
        Clock.now += 1000 * len(self.asked)
        return np.zeros((len(x), 2), np.float32)


class Clock:
    now = 0


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.time, "perf_counter_ns", lambda: Clock.now)


@pytest.mark.parametrize(("size", "warmup", "samples"), [(1, 3, 5), (4, 0, 101), (7, 2, 1)])
def test_first_call_warm_up_and_samples_are_apart(size: int, warmup: int, samples: int) -> None:
    images = np.arange(40, dtype=np.uint8).reshape(10, 1, 2, 2)
    runner = Counted(size)
    taken, first_ms = bench.latency(runner, images, warmup=warmup, samples=samples)
    assert len(runner.asked) == 1 + warmup + samples and first_ms == 0.001
    assert taken.dtype == np.int64
    assert taken.tolist() == [1000 * (1 + warmup + i) for i in range(1, samples + 1)]
    assert all(batch.shape == (size, 1, 2, 2) and batch.dtype == np.uint8 for batch in runner.asked)
    np.testing.assert_array_equal(runner.asked[0], images[:size])
    assert {batch.tobytes() for batch in runner.asked[1 + warmup :]} <= {
        batch.tobytes() for batch in _batches(images, size)
    }


def _batches(images: np.ndarray, size: int) -> list[np.ndarray]:
    starts = range(0, len(images), size)
    return [np.resize(images[i : i + size], (size, 1, 2, 2)) for i in starts]


def test_all_images_are_used_in_turn() -> None:
    images = np.arange(40, dtype=np.uint8).reshape(10, 1, 2, 2)
    runner = Counted(1)
    bench.latency(runner, images, warmup=0, samples=25)
    assert [int(batch[0, 0, 0, 0]) // 4 for batch in runner.asked[1:]] == [i % 10 for i in range(25)]


def summary(samples: np.ndarray, **more: Any) -> dict[str, Any]:
    given = {"batch_size": 4, "warmup": 9, "cold_start_ms": 7.0, "first_ms": 3.0} | more
    return bench.summary(samples, **given)


def test_percentiles_against_sorting() -> None:
    samples = np.random.default_rng(0).lognormal(13, 1, 1237).astype(np.int64)
    found, ordered = summary(samples), sorted(samples.tolist())

    def percentile(p: float) -> float:
        place = p / 100 * (len(ordered) - 1)
        below, above = ordered[math.floor(place)], ordered[math.ceil(place)]
        return (below + (above - below) * (place - math.floor(place))) / 1e6

    for p in (50, 90, 95, 99):
        assert found[f"p{p}_ms"] == pytest.approx(percentile(p))
    mean = sum(ordered) / len(ordered)
    spread = math.sqrt(sum((value - mean) ** 2 for value in ordered) / len(ordered))
    assert found["mean_ms"] == pytest.approx(mean / 1e6) and found["cv"] == pytest.approx(spread / mean)
    assert (found["min_ms"], found["max_ms"]) == (ordered[0] / 1e6, ordered[-1] / 1e6)
    assert found["images_per_s"] == pytest.approx(4 * 1e9 / mean)
    assert (found["batch_size"], found["n"], found["warmup"]) == (4, 1237, 9)
    assert (found["cold_start_ms"], found["first_inference_ms"]) == (7.0, 3.0)
    assert "uint8" in found["inside"] and "copy" in found["inside"]


@pytest.mark.parametrize(("n", "there"), [(4999, False), (5000, True)])
def test_the_last_percentile_needs_samples(n: int, there: bool) -> None:
    samples = np.full(n, 1_000_000)
    samples[-1] = 10**9
    found = summary(samples)
    assert ("p999_ms" in found) is there
    assert found.get("p999_ms", 1.0) == 1.0 and found["max_ms"] == 1000
