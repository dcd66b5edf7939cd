"""Query after query: how often the runner is called, with what, when, and the numbers made of the samples."""

import gc
import math
import time
from typing import Any

import numpy as np
import pytest

from edge.bench import figures
from edge.bench.harness import TimingClock, quiet_harness, timing_conditions
from edge.bench.stream import KeptAnswers, Queries, Stream
from edge.runtimes.preprocess import Preprocess
from edge.statement.statement import as_json
from edge.statement.timing import TimingFigures
from tests.edge.scripted import FakeClock, Scripted, images


def stream(runner: Scripted, frames: Any = None, preprocess: "Preprocess | None" = None, kept: Any = None) -> Stream:
    queries = Queries(images() if frames is None else frames, runner.batch_size, preprocess)
    return Stream(runner, queries, kept or KeptAnswers(), runner.clock)  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------- queries


@pytest.mark.parametrize(("size", "warmup", "samples"), [(1, 3, 5), (4, 0, 101), (7, 2, 1)])
def test_first_call_warm_up_and_samples_are_apart(size: int, warmup: int, samples: int) -> None:
    runner = Scripted(FakeClock(), batch_size=size)
    found = stream(runner)
    assert found.first() == 0.001
    assert found.warm(warmup) == warmup
    taken = found.run(samples)
    assert len(runner.asked) == 1 + warmup + samples
    assert taken.dtype == np.int64 and taken.tolist() == [1000 * (1 + warmup + i) for i in range(1, samples + 1)]
    np.testing.assert_array_equal(found.samples_ns, taken)
    assert all(batch.shape == (size, 1, 2, 2) and batch.dtype == np.uint8 for batch in runner.asked)
    np.testing.assert_array_equal(runner.asked[0], images()[:size])


def test_all_images_are_used_in_turn_and_the_last_batch_is_filled_with_its_own() -> None:
    runner = Scripted(FakeClock())
    stream(runner).run(25)
    assert [int(batch[0, 0, 0, 0]) // 4 for batch in runner.asked] == [i % 10 for i in range(25)]
    runner = Scripted(FakeClock(), batch_size=4)
    stream(runner).run(4)
    firsts = [[int(pixel) // 4 for pixel in batch[:, 0, 0, 0]] for batch in runner.asked]
    assert firsts == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 8, 9], [0, 1, 2, 3]]
    listed = Queries(list(images()), 4)
    assert [[int(frame[0, 0, 0]) // 4 for frame in batch] for batch in listed.batches] == firsts[:3]


@pytest.mark.parametrize(
    ("queries", "seconds", "count"), [(3, 0.0, 3), (3, 1e-5, 10), (20, 1e-5, 20), (1, 1.05e-5, 11)]
)
def test_a_run_lasts_until_both_count_and_time_are_reached(queries: int, seconds: float, count: int) -> None:
    runner = Scripted(FakeClock(), [1000] * 99)
    found = stream(runner)
    assert len(found.run(queries, seconds)) == count
    assert found.runs == [(0, 1000 * count, count)]
    found.run(2)
    assert found.runs[1] == (1000 * count, 1000 * (count + 2), 2) and len(found.samples_ns) == count + 2


def test_warm_up_ends_early_where_its_time_is_up() -> None:
    runner = Scripted(FakeClock(), [1000] * 99)
    assert stream(runner).warm(50, 2.5e-6) == 3
    assert stream(runner).warm(2, 1.0) == 2


def test_preprocessing_is_inside_the_time_and_apart() -> None:
    clock = FakeClock()
    runner = Scripted(clock, [1000] * 9)

    def half(frames: np.ndarray) -> np.ndarray:
        clock.moment += 300
        return frames // 2

    found = stream(runner, preprocess=Preprocess("m:half", half, None))
    found.run(5)
    assert found.samples_ns.tolist() == [1300] * 5 and found.preprocess_ns.tolist() == [300] * 5
    np.testing.assert_array_equal(runner.asked[3], images()[3:4] // 2)
    plain = stream(Scripted(FakeClock()))
    plain.run(2)
    assert plain.preprocess_ns.tolist() == [0, 0]


def test_throughput_is_of_the_whole_time_and_what_lies_between_is_no_latency() -> None:
    clock = FakeClock()

    class Slow(KeptAnswers):
        def offer(self, frames: Any, logits: Any) -> None:
            clock.moment += 500

    found = stream(Scripted(clock, [1000] * 9, batch_size=3), kept=Slow())
    found.run(4)
    assert found.samples_ns.tolist() == [1000] * 4 and found.wall_ns == 6000
    said = figures.throughput(found.samples_ns, found.wall_ns, 3)
    assert said.images_per_s == pytest.approx(12 / 6e-6) and said.seconds == pytest.approx(6e-6)
    assert (said.batch_size, said.n, said.p50_ms) == (3, 4, 0.001)


# ---------------------------------------------------------------------------------------------- numbers


def summary(samples: np.ndarray) -> dict[str, Any]:
    conditions = timing_conditions(cuda_graph=False, spin_wait=True)
    opened = TimingFigures(batch_size=4, cold_start_ms=7.0, first_inference_ms=3.0, warmup=9, conditions=conditions)
    return dict(as_json(figures.latency_summary(samples, "all", opened)))


def test_percentiles_against_sorting() -> None:
    samples = np.random.default_rng(0).lognormal(13, 1, 1237).astype(np.int64)
    found, ordered = summary(samples), sorted(samples.tolist())

    def percentile(p: float) -> float:
        place = p / 100 * (len(ordered) - 1)
        below, above = ordered[math.floor(place)], ordered[math.ceil(place)]
        return float(below + (above - below) * (place - math.floor(place))) / 1e6

    for p in (50, 90, 95, 99):
        assert found[f"p{p}_ms"] == pytest.approx(percentile(p))
    mean = sum(ordered) / len(ordered)
    spread = math.sqrt(sum((value - mean) ** 2 for value in ordered) / len(ordered))
    assert found["mean_ms"] == pytest.approx(mean / 1e6) and found["cv"] == pytest.approx(spread / mean)
    assert (found["min_ms"], found["max_ms"]) == (ordered[0] / 1e6, ordered[-1] / 1e6)
    assert found["images_per_s"] == pytest.approx(4 * 1e9 / mean)
    assert (found["batch_size"], found["n"], found["warmup"]) == (4, 1237, 9)
    assert (found["cold_start_ms"], found["first_inference_ms"]) == (7.0, 3.0)


@pytest.mark.parametrize(("n", "there"), [(4999, False), (5000, True)])
def test_the_last_percentile_needs_samples(n: int, there: bool) -> None:
    samples = np.full(n, 1_000_000)
    samples[-1] = 10**9
    found = summary(samples)
    assert ("p999_ms" in found) is there
    assert found.get("p999_ms", 1.0) == 1.0 and found["max_ms"] == 1000


# ---------------------------------------------------------------------------------------------- clock


@pytest.mark.parametrize("ahead_ms", [-1, 0, 0.2, 3])
def test_waiting_never_ends_before_its_moment(ahead_ms: float) -> None:
    clock = TimingClock()
    moment = time.perf_counter_ns() + int(ahead_ms * 1e6)
    clock.until(moment)
    assert time.perf_counter_ns() >= moment


def test_waiting_sleeps_first_and_spins_at_the_end() -> None:
    moments, slept = iter([0, *range(2_000_000, 3_100_000, 100_000)]), list[float]()
    TimingClock(lambda: next(moments), slept.append).until(3_000_000)
    assert slept == [0.002] and list(moments) == [], "looked at the clock until the moment came"


def test_nothing_is_collected_inside_and_everything_as_before_after_it() -> None:
    assert gc.isenabled()
    with pytest.raises(KeyError), quiet_harness():
        assert not gc.isenabled() and gc.get_freeze_count() > 0
        raise KeyError
    assert gc.isenabled() and gc.get_freeze_count() == 0
    gc.disable()
    try:
        with quiet_harness():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_conditions_are_told() -> None:
    found = timing_conditions(cuda_graph=True, spin_wait=None)
    assert found.clock == "perf_counter_ns" and "off" in found.garbage_collector and found.affinity
    assert found.cuda_graph and found.spin_wait is None
