"""What a board's tools print: the documented lines give their numbers, any other text gives less, never a fault."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.evidence import jetson
from tests.edge import boards

RECORDED = {
    (board, path.rsplit("/", 1)[1]): content
    for board in boards.BOARDS
    for path, content in boards.files(board)
    if path.startswith("commands/")
}
JP7 = (
    "08-08-2026 21:00:39 RAM 8353/125749MB (lfb 31x4MB) CPU [90%@2601,off,7%@2601] EMC_FREQ 34%@4266 "
    "GR3D_FREQ 87%@[1574,0,1574] NVENC0_FREQ @1691 VIC off cpu@58.25C/61.75C gpu@-256C VDD_GPU 0mW/0mW/0mW "
    "VIN -392mW/36487mW/124486mW FUTURE_TOKEN value"
)


def test_a_line_of_jetpack_6() -> None:
    found = jetson.parse_tegrastats(RECORDED["orin-nx", "tegrastats.txt"])
    assert found["memory"]["RAM"] == {"used_bytes": 3522 << 20, "total_bytes": 15606 << 20}
    assert found["cores"][3] == {"busy": 1.0, "mhz": 1984.0} and len(found["cores"]) == 8
    assert found["emc"] == {"busy": 0.31, "mhz": 3199.0} and found["gpu"] == {"busy": 0.98, "mhz": 1172.0}
    assert found["power_mw"] == {"VDD_IN": 24738.0, "VDD_CPU_GPU_CV": 14048.0, "VDD_SOC": 3970.0}
    assert found["temperatures_c"]["tj"] == 99.093 and len(found["temperatures_c"]) == 6


def test_a_line_of_jetpack_7() -> None:
    found = jetson.parse_tegrastats(JP7)
    assert found["cores"] == [{"busy": 0.9, "mhz": 2601.0}, None, {"busy": 0.07, "mhz": 2601.0}]
    assert found["gpu"] == {"busy": 0.87, "mhz": 1574.0}
    assert found["temperatures_c"] == {"cpu": 58.25}  # −256 is a sensor without power
    assert found["power_mw"] == {"VDD_GPU": 0.0, "VIN": -392.0}


def test_the_last_whole_line_counts_and_what_it_lacks_is_absent() -> None:
    found = jetson.parse_tegrastats(RECORDED["orin-nano", "tegrastats.txt"])
    assert found["power_mw"]["VDD_IN"] == 5011.0 and found["gpu"] == {"busy": 0.14, "mhz": None}
    assert "emc" not in found and found["cores"][5] is None
    assert "gpu" not in jetson.parse_tegrastats(RECORDED["thor", "tegrastats.txt"])
    assert jetson.parse_tegrastats("CPU [0%,5%,off]@2601 RAM 1/2MB")["cores"] == [
        {"busy": 0.0, "mhz": 2601.0},
        {"busy": 0.05, "mhz": 2601.0},
        None,
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (RECORDED["orin-nano", "nvpmodel-q.txt"], {"id": 1, "name": "25W"}),
        (RECORDED["orin-nx", "nvpmodel-q.txt"], {"id": 0, "name": "MAXN_SUPER"}),
        ("NV Power Mode: MODE_30W", {"id": None, "name": "MODE_30W"}),
        ("NVPM ERROR: Error opening /sys/kernel/x", None),
        ("", None),
    ],
)
def test_power_modes(text: str, found: "dict[str, Any] | None") -> None:
    assert jetson.parse_nvpmodel(text) == found


def test_shown_clocks_are_in_mhz() -> None:
    found = jetson.parse_jetson_clocks(RECORDED["orin-nx", "jetson_clocks-show.txt"])
    assert len(found) == 10 and found["cpu7"] == {"mhz": 1984.0, "min_mhz": 1984.0, "max_mhz": 1984.0}
    assert found["emc"] == {"mhz": 3199.0, "min_mhz": 204.0, "max_mhz": 3199.0, "override": True}
    assert found["gpu"]["mhz"] == 1173.0
    assert jetson.parse_jetson_clocks(RECORDED["orin-nano", "jetson_clocks-show.txt"]) == {}
    off = "cpu3: Online=0 Governor=schedutil MinFreq=1 MaxFreq=1 CurrentFreq=1 IdleStates: WFI=1"
    assert jetson.parse_jetson_clocks(off) == {}


LINES = st.sampled_from([*RECORDED.values(), JP7])


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """A recorded text with a piece of it cut out, doubled, or replaced by anything."""
    text = draw(LINES)
    first, last = sorted((draw(st.integers(0, len(text))), draw(st.integers(0, len(text)))))
    return text[:first] + draw(st.sampled_from(["", text[first:last] * 2]) | st.text(max_size=20)) + text[last:]


@given(st.text() | damaged())
def test_no_text_is_a_fault(text: str) -> None:
    for read in (jetson.parse_tegrastats, jetson.parse_nvpmodel, jetson.parse_jetson_clocks):
        json.dumps(read(text), allow_nan=False)
