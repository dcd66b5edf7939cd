"""Samples in a few figures, and their file."""

import json
from pathlib import Path

import numpy as np
import pytest

from compress.statement_check import schema_fault
from edge.core.errors import CompressError
from edge.evidence import Samples
from edge.evidence.samples import sample_summary
from tests.edge.evidence.test_energy import span, watched

ABOUT = {"wall_s": 10.0, "cpu_s": 0.5, "interval_s": 0.05, "ranges": {}, "unreadable": []}
CHANNELS = {
    "mhz.cpu0": lambda t: 1000.0 + 100 * t,
    "celsius.tj": 60.0,
    "celsius.cv0": np.nan,
    "mw.VDD_IN": 5000.0,
    "s.busy": lambda t: 100 + 1.75 * t,
    "s.own": lambda t: 3 + 0.9 * t,
    "s.steal": lambda t: 5 + 0.25 * t,
    "s.total": lambda t: 2.0 * t,
    "share.gpu": 0.5,
    "state.cpu-throttle-alert": lambda t: float(4 < t < 4.5),
    "events.oc3": lambda t: 7.0 + (t > 3),
    "bits.gpu": lambda t: float(0x1 | (0x20 if t > 5 else 0)),
}


def test_figures_of_the_timed_part() -> None:
    found = sample_summary(watched(10, CHANNELS, about=ABOUT), span(2, 6), inferences=100)
    assert found["n"] == 81 and found["seconds"] == 4.0 and found["hz"] == 20.25
    assert found["longest_gap_ms"] == pytest.approx(50) and found["sampler_cpu"] == 0.05
    assert found["mhz"] == {"cpu0": {"min": 1200.0, "mean": pytest.approx(1400), "max": 1600.0}}
    assert set(found["celsius"]) == {"tj"}  # what never told anything is not there
    want = {"busy": 1.75, "own": 0.9, "steal": 0.25, "others": 1.75 - 0.9 - 0.05}
    assert found["cores"] == pytest.approx(want)
    assert found["throttled"] == {"cpu-throttle-alert": 1.0} and found["events"] == {"oc3": 1.0}
    assert found["held_down_by"] == ["heat (software)"] and found["gpu_busy"] == 0.5
    assert found["energy"]["gross_mj"] == pytest.approx(200) and found["fault"] is None
    told = {"what": "single-stream", **found}
    assert schema_fault(told, "during") is None


def test_before_the_timed_part_nothing_counts() -> None:
    found = sample_summary(watched(10, CHANNELS, about=ABOUT), span(7, 9))
    assert found["throttled"] == {"cpu-throttle-alert": 0.0} and found["events"] == {"oc3": 0.0}


def test_of_nothing_there_are_no_figures() -> None:
    found = sample_summary(Samples(about={"fault": "it did not begin"}), span(0, 1))
    json.dumps(found, allow_nan=False)
    assert (found["n"], found["cores"], found["mhz"], found["fault"]) == (0, None, {}, "it did not begin")


def test_a_cut_knows_what_bounds_it() -> None:
    whole = watched(2, {"mw.VDD_IN": 1.0})
    assert len(whole.cut(span(0.51, 0.52))) == 2 and len(whole.cut(span(0.5, 1.0))) == 11
    assert len(whole.cut(span(-5, 50))) == len(whole)


def test_a_file_gives_them_back(tmp_path: Path) -> None:
    samples = watched(3, CHANNELS, about=ABOUT)
    samples.write(tmp_path / "evidence.npz")
    back = Samples.read(tmp_path / "evidence.npz")
    assert back.about == ABOUT and np.array_equal(back.times_ns, samples.times_ns)
    assert back.values.keys() == samples.values.keys()
    for name, row in samples.values.items():
        np.testing.assert_array_equal(back.values[name], row)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", b"no zip"])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "evidence.npz"
    path.write_bytes(content)
    with pytest.raises(CompressError, match="not readable as samples"):
        Samples.read(path)


@pytest.mark.parametrize("row", [np.zeros(2), np.zeros((3, 1)), np.array(["a", "b", "c"]), np.arange(3)])
@pytest.mark.parametrize("about", ["{}", "[]"])
def test_channels_of_another_form_are_refused(tmp_path: Path, row: np.ndarray, about: str) -> None:
    path = tmp_path / "evidence.npz"
    np.savez(path, monotonic_ns=np.arange(3), about=np.array(about), **{"mw.VDD_IN": row})
    with pytest.raises(CompressError, match="unequal length"):
        Samples.read(path)
