"""Energy against numbers that can be worked out by hand."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.evidence import Samples
from edge.evidence.power import summands
from edge.evidence.samples import timed_energy

S = 1_000_000_000
ORIGIN = 7 * 3600 * S  # a machine that is up for hours: float64 must not lose the nanoseconds


def watched(
    seconds: float, rails: "dict[str, Any]", hz: float = 20.0, about: "dict[str, Any] | None" = None
) -> Samples:
    """Samples at `hz`; each rail a number or a function of the time in seconds."""
    t = np.arange(0, seconds + 0.5 / hz, 1 / hz)
    values = {
        name: np.array([power(x) if callable(power) else power for x in t], float) for name, power in rails.items()
    }
    return Samples(ORIGIN + (t * S).astype(np.int64), values, about or {})


def span(first: float, last: float) -> tuple[int, int]:
    return ORIGIN + int(first * S), ORIGIN + int(last * S)


def test_constant_power_is_power_times_time() -> None:
    found = timed_energy(watched(10, {"mw.VDD_IN": 5000.0}), span(2, 6), inferences=400)
    assert found["gross_mj"] == pytest.approx(5000 * 4 / 400) and found["mean_mw"] == pytest.approx(5000)
    assert found["net_mj"] is None and found["why"] == "idle power was not measured"
    assert (found["rails"], found["source"], found["seconds"]) == (["VDD_IN"], "power over time", 4.0)


def test_a_ramp_is_the_area_below_it_wherever_it_is_cut() -> None:
    ramp = watched(10, {"mw.VDD_IN": lambda t: 1000 * t})
    found = timed_energy(ramp, span(1.013, 7.777))  # between samples: its ends are interpolated
    assert found["gross_mj"] == pytest.approx(1000 * (7.777**2 - 1.013**2) / 2, rel=1e-9)


def test_irregular_samples_count_by_their_time_stamps() -> None:
    t = np.sort(np.concatenate([np.linspace(0, 1, 40), np.linspace(1, 10, 12)]))
    samples = Samples(ORIGIN + (t * S).astype(np.int64), {"mw.VDD_IN": np.where(t < 1, 0.0, 1000.0)})
    found = timed_energy(samples, span(0, 10))
    assert found["gross_mj"] == pytest.approx(9000, rel=0.01)  # the mean over samples would give a fifth of it


def test_idle_power_is_subtracted() -> None:
    samples = watched(10, {"mw.VDD_IN": lambda t: 3000.0 if t < 4.975 else 8000.0})
    found = timed_energy(samples, span(6, 9), span(1, 4), inferences=30)
    assert found["gross_mj"] == pytest.approx(800) and found["net_mj"] == pytest.approx(500)
    assert found["idle_mw"] == pytest.approx(3000) and found["why"] is None
    upside_down = timed_energy(samples, span(1, 4), span(6, 9))
    assert upside_down["net_mj"] is None and "idle took more, 8000 mW" in upside_down["why"]


@pytest.mark.parametrize(
    ("rails", "whole"),
    [
        (["VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"], ["VDD_IN"]),
        (["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO"], ["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"]),
        (["VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0", "VIN"], ["VIN"]),
        (["VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0"], ["VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0"]),
        (["VDDQ_VDD2_1V8AO", "VDD_CPU_CV"], ["VDDQ_VDD2_1V8AO", "VDD_CPU_CV"]),
        ([], []),
    ],
)
def test_no_rail_is_summed_twice(rails: "list[str]", whole: "list[str]") -> None:
    assert summands(rails) == whole
    found = timed_energy(watched(4, {f"mw.{name}": 1000.0 * (i + 1) for i, name in enumerate(rails)}), span(0, 4))
    assert found["rails"] == whole
    if whole:
        assert found["mean_mw"] == pytest.approx(sum(1000.0 * (rails.index(name) + 1) for name in whole))


def test_counters_are_taken_as_they_stand_and_may_start_again() -> None:
    def wrapped(t: float) -> float:
        return (200_000 + 50_000 * t) % 262_144  # 50 W; as RAPL's counter it starts again from 0

    about = {"ranges": {"mj.package-0": 262_144.0}}
    samples = watched(
        12, {"mj.package-0": wrapped, "mj.GPU": lambda t: 1e9 + 100_000 * t, "mw.GPU": 100_000.0}, 20.0, about
    )
    found = timed_energy(samples, span(0, 10), inferences=100)
    assert found["gross_mj"] == pytest.approx((50_000 + 100_000) * 10 / 100)  # the GPU's power is its counter's
    assert (found["rails"], found["source"]) == (["package-0", "GPU"], "counter")


def test_gaps_are_bridged() -> None:
    holed = watched(10, {"mw.VDD_IN": lambda t: np.nan if 3 < t < 5 else 4000.0, "mw.VDD_SOC": np.nan})
    assert timed_energy(holed, span(2, 8))["mean_mw"] == pytest.approx(4000)


@pytest.mark.parametrize(
    ("samples", "interval", "inferences", "why"),
    [
        (Samples(), span(0, 1), 1, "no power monitor or energy counter could be read"),
        (Samples(about={"fault": "nobody came"}), span(0, 1), 1, "nobody came"),
        (watched(2, {"mhz.cpu0": 2000.0}), span(0, 1), 1, "no power monitor"),
        (watched(2, {"mw.VDD_IN": 1.0}), span(0, 0.1), 1, "3 samples of power in the 0.10 s that were timed"),
        (watched(2, {"mw.VDD_IN": 1.0}), span(50, 60), 1, "0 samples of power"),
        (watched(2, {"mw.VDD_IN": 1.0}), span(0, 2), 0, "are needed"),
    ],
)
def test_no_figure_without_its_reason(samples: Samples, interval: "tuple[int, int]", inferences: int, why: str) -> None:
    found = timed_energy(samples, interval, inferences=inferences)
    assert found["gross_mj"] is None and found["net_mj"] is None and why in found["why"]


@given(
    powers=st.lists(st.floats(0, 1e5), min_size=61, max_size=61),
    cut=st.floats(0.6, 2.4),
    scale=st.floats(0.1, 10),
)
def test_energy_adds_up_and_scales(powers: "list[float]", cut: float, scale: float) -> None:
    samples = watched(3, {"mw.VDD_IN": lambda t: powers[round(t * 20)]})
    parts = [timed_energy(samples, part)["gross_mj"] for part in (span(0, cut), span(cut, 3))]
    whole = timed_energy(samples, span(0, 3))["gross_mj"]
    assert sum(parts) == pytest.approx(whole, rel=1e-6, abs=1e-3)
    scaled = Samples(samples.times_ns, {"mw.VDD_IN": samples.values["mw.VDD_IN"] * scale})
    assert timed_energy(scaled, span(0, 3))["gross_mj"] == pytest.approx(scale * whole, rel=1e-9, abs=1e-6)
