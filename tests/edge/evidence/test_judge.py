"""Each warning where its cause is, none where it is not."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from edge.evidence import snapshot
from edge.evidence.warnings import WARNINGS, machine_warnings
from tests.edge import boards

STEADY = 0.01  # coefficient of variation
State = dict[str, Any]


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> State:
    """AGX Orin, clocks held, cool."""
    return snapshot(boards.unpack("agx-orin", tmp_path_factory.mktemp("board")))


@pytest.fixture
def states(quiet: State) -> "tuple[State, State, State]":
    during = {
        "n": 100,
        "seconds": 5.0,
        "hz": 20.0,
        "mhz": {},
        "celsius": {},
        "cores": {"busy": 1.0, "own": 0.95, "others": 0.05, "steal": 0.0},
        "throttled": {},
        "held_down_by": None,
        "events": {"oc3": 0.0, "limited": 0.0},
        "fault": None,
    }
    return copy.deepcopy(quiet), during, copy.deepcopy(quiet)


def names(
    states: "tuple[State, State, State]", spread: "float | None" = STEADY, load: "State | None" = None
) -> list[str]:
    rows = machine_warnings(*states, spread, load)
    assert all(row["found"] and row["fix"] and row["name"] in WARNINGS for row in rows)
    return [row["name"] for row in rows]


def test_a_quiet_board_has_no_warning(states: "tuple[State, State, State]") -> None:
    assert names(states) == []


def put(*path: str) -> "Callable[[State, Any], None]":
    def change(state: State, value: Any) -> None:
        for key in path[:-1]:
            state = state[key]
        state[path[-1]] = value

    return change


BEFORE, DURING, AFTER = 0, 1, 2
CASES = [
    ("clocks-unlocked", BEFORE, put("clocks", "gpu", "min_mhz"), 306.0, "gpu 306 to 1300 MHz"),
    ("clocks-unlocked", BEFORE, put("clocks", "cpu5", "min_mhz"), 729.0, "cpu5 729 to 2202 MHz"),
    ("clocks-unlocked", BEFORE, put("clocks", "emc", "override"), False, "emc 204 to 3199 MHz"),
    ("power-mode-changed", AFTER, put("power_mode"), {"id": 2, "name": "30W"}, "MAXN before, 30W after"),
    (
        "throttled",
        DURING,
        put("throttled"),
        {"gpu-throttle-alert": 1.0, "cpufreq-cpu0": 0.0},
        "down: gpu-throttle-alert",
    ),
    ("throttled", AFTER, put("throttled", "cpu-throttle-alert"), 2, "down: cpu-throttle-alert"),
    ("throttled", DURING, put("held_down_by"), ["power cap"], "held down by power cap"),
    ("throttled", DURING, put("events", "limited"), 12.0, "time limit stopped the process in 12 periods"),
    ("over-current", DURING, put("events", "oc3"), 4.0, "oc3 4×"),
    ("hot", DURING, put("celsius"), {"tj": {"min": 60.0, "mean": 90.0, "max": 94.5}}, "tj reached 94.5 °C"),
    ("hot", AFTER, put("temperatures_c", "gpu"), 99.5, "gpu reached 99.5 °C, it throttles from 99.0 °C"),
    ("shared-gpu", BEFORE, put("gpu"), {"others": [4711], "hidden": 0}, "process 4711"),
    ("shared-gpu", BEFORE, put("gpu"), {"others": [], "hidden": 1}, "1 in another container"),
    ("background-load", DURING, put("cores", "others"), 0.7, "0.70 cores busy"),
    ("steal", DURING, put("cores", "steal"), 0.05, "0.05 cores' time"),
    ("few-samples", DURING, put("hz"), 6.0, "6.0 samples a second"),
    ("few-samples", DURING, put("seconds"), 0.02, "lasted 0.02 s"),
    ("few-samples", DURING, put("fault"), "it did not begin", "it did not begin"),
]


@pytest.mark.parametrize(("name", "which", "change", "value", "said"), CASES, ids=[f"{c[0]}-{c[4]}" for c in CASES])
def test_a_cause_has_its_warning(
    states: "tuple[State, State, State]", name: str, which: int, change: Any, value: Any, said: str
) -> None:
    change(states[which], value)
    (row,) = machine_warnings(*states, STEADY)
    assert row["name"] == name and said in row["found"]


@pytest.mark.parametrize(
    ("which", "change", "value"),
    [
        (BEFORE, put("over_current", "oc3"), 27390),  # long ago
        (AFTER, put("over_current", "oc3"), 4),  # not while timed
        (AFTER, put("gpu"), {"others": [], "hidden": 1}),  # this process, under its number outside the container
        (AFTER, put("gpu"), {"busy": None}),
        (DURING, put("cores"), None),
        (DURING, put("throttled"), {"cpufreq-cpu0": 0.0}),
        (AFTER, put("power_mode"), None),
        (BEFORE, put("limited"), 5),
    ],
)
def test_no_warning_without_cause(states: "tuple[State, State, State]", which: int, change: Any, value: Any) -> None:
    change(states[which], value)
    assert names(states) == []


def test_latency_that_spreads_is_unsteady(states: "tuple[State, State, State]") -> None:
    assert names(states, 0.0251) == ["unsteady"]
    assert names(states, 0.0249) == names(states, None) == []


def test_a_load_that_was_asked_for_is_no_fault(states: "tuple[State, State, State]") -> None:
    states[DURING]["cores"]["others"] = 2.0
    assert names(states, load={"processes": 2}) == []
    assert names(states, load=None) == ["background-load"]


def test_a_processor_by_its_governor_and_a_gpu_by_what_its_clock_did(states: "tuple[State, State, State]") -> None:
    for state in (states[BEFORE], states[AFTER]):
        state["kind"] = "gpu"
        state["clocks"] = {
            "cpu0": {"mhz": 800.0, "min_mhz": 800.0, "max_mhz": 3600.0, "governor": "powersave"},
            "gpu": {"mhz": 1980.0, "max_mhz": 1980.0},
        }
    states[DURING]["mhz"] = {"gpu": {"min": 1755.0, "mean": 1900.0, "max": 1980.0}}
    rows = machine_warnings(*states, STEADY)
    assert [row["name"] for row in rows] == ["clocks-unlocked", "governor"]
    assert "from 1755 to 1980 MHz" in rows[0]["found"] and "nvidia-smi -lgc 1980" in rows[0]["fix"]
    assert rows[1]["found"] == "cores run under powersave"
    states[DURING]["mhz"] = {"gpu": {"min": 1965.0, "mean": 1970.0, "max": 1980.0}}
    states[BEFORE]["clocks"]["cpu0"]["governor"] = "performance"
    assert names(states) == []


def test_without_samples_the_states_alone_speak(states: "tuple[State, State, State]") -> None:
    before, _, after = states
    assert machine_warnings(before, None, after, STEADY) == []
    after["over_current"]["oc2"] += 1
    before["limited"], after["limited"] = 3, 5
    rows = machine_warnings(before, None, after, STEADY)
    assert [row["name"] for row in rows] == ["throttled", "over-current"] and "in 2 periods" in rows[0]["found"]


def test_every_name_is_tried_here() -> None:
    assert {case[0] for case in CASES} | {"governor", "unsteady", "not-a-jetson"} == set(WARNINGS)
