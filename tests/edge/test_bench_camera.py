"""The camera against a simulation that goes nanosecond by nanosecond, and its figures against loops."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.bench import camera
from edge.bench.stream import KeptAnswers, Queries, Stream
from tests.edge.scripted import FakeClock, Scripted, images

PERIOD = 10  # ns, at 10⁸ frames a second


def shot(services: "list[int]", frames: int) -> tuple[camera.CameraRun, Scripted]:
    """The camera at one frame in 10 ns, answers of the scripted runner taking `services` in turn."""
    clock = FakeClock()
    clock.moment = 12345
    runner = Scripted(clock, (services[i % len(services)] for i in range(frames)))
    stream = Stream(runner, Queries(images(), 1), KeptAnswers(), clock)  # type: ignore[arg-type]
    return camera.run_camera(stream, 1e9 / PERIOD, frames * PERIOD / 1e9), runner


def simulated(services: "list[int]", frames: int) -> list[tuple[int, int]]:
    """(frame, latency) of what is answered: at every nanosecond an end, an arrival, a start, in this order."""
    waiting: int | None = None
    working: tuple[int, int] | None = None  # frame, its end
    found: list[tuple[int, int]] = []
    for t in range(frames * PERIOD + sum(services) * frames + 1):
        if working is not None and working[1] == t:
            found.append((working[0], t - working[0] * PERIOD))
            working = None
        if t % PERIOD == 0 and t // PERIOD < frames:
            waiting = t // PERIOD  # whoever waited is dropped
        if working is None and waiting is not None:
            working = (waiting, t + services[len(found) % len(services)])
            waiting = None
        if working is None and t >= (frames - 1) * PERIOD:
            break
    return found


@given(st.lists(st.integers(1, 45), min_size=1, max_size=8), st.integers(2, 40))
def test_answers_drops_and_latencies_against_the_simulation(services: "list[int]", frames: int) -> None:
    found, _ = shot(services, frames)
    assert list(zip(found.answered.tolist(), found.latency_ns.tolist(), strict=True)) == simulated(services, frames)
    assert found.frames == frames


def test_one_slow_answer_is_not_hidden() -> None:
    """The frames that came meanwhile count with what they waited, or as dropped; a query sent later would not."""
    found, _ = shot([2, 2, 37, 8, 8, 2, 2], 9)
    assert found.answered.tolist() == [0, 1, 2, 5, 6, 7, 8]
    assert found.latency_ns.tolist() == [2, 2, 37, 15, 13, 5, 2]
    said = camera.camera_figures(found)
    assert (said.frames, said.answered, said.dropped, said.missed) == (9, 7, 2, 3)
    assert said.on_time == pytest.approx(4 / 9)
    assert found.service_ns.tolist() == [2, 2, 37, 8, 8, 2, 2]


def test_each_frame_is_its_own_image_also_after_a_drop() -> None:
    found, runner = shot([25, 3], 30)
    assert [int(x[0, 0, 0, 0]) // 4 for x in runner.asked] == [k % 10 for k in found.answered.tolist()]


def test_the_harness_waits_until_a_frame_is_due_and_for_no_other() -> None:
    found, runner = shot([4, 27, 4], 6)
    clock = runner.clock
    assert isinstance(clock, FakeClock)
    start = clock.waits[0]
    assert start == 12345 + PERIOD, "the first frame comes a period after the beginning"
    served = {start + PERIOD * k for k in found.answered.tolist()}
    assert set(clock.waits) <= served and len(found.late_ns) == len(clock.waits) < len(served)
    assert found.late_ns.tolist() == [0] * len(clock.waits)


def test_a_period_that_is_no_whole_number_of_ns_does_not_drift() -> None:
    due = camera.arrivals(30.0, 3001, 5)
    assert due[3] == 5 + 100_000_000 and due[3000] == 5 + 100 * 10**9
    assert all(due[k] == 5 + int(Fraction(10**9, 30) * k) for k in range(3001))


def test_figures_against_loops() -> None:
    rng = np.random.default_rng(3)
    latency = rng.integers(1_000_000, 30_000_000, 400)
    late = rng.integers(0, 90_000, 50)
    answered = np.sort(rng.permutation(500)[:400])
    found = camera.camera_figures(
        camera.CameraRun(60.0, 500, answered, latency, latency - 5, latency * 0, late, (0, 1))
    )
    deadline, ms = 1000 / 60, (latency / 1e6).tolist()
    assert found.missed == sum(1 for value in ms if value > deadline) > 0
    assert found.dropped == 100 and found.on_time == pytest.approx((400 - found.missed) / 500)
    changes = [abs(b - a) for a, b in itertools.pairwise(ms)]
    assert found.jitter_ms == pytest.approx(sum(changes) / len(changes))
    assert found.p99_ms == pytest.approx(np.percentile(ms, 99)) and found.max_ms == max(ms)
    assert found.wake_p99_ms == pytest.approx(np.percentile(late, 99) / 1e6)
    never = camera.CameraRun(60.0, 500, answered[:1], latency[:1], latency[:1], latency[:1], late[:0], (0, 1))
    assert camera.camera_figures(never).wake_p99_ms is None and camera.camera_figures(never).jitter_ms == 0
