"""The report's section on the machine: what was recorded of a board shows, with charts of what was sampled."""

import copy
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress.report import page, svg
from edge.evidence import Samples, snapshot
from edge.evidence.samples import sample_summary
from edge.evidence.warnings import machine_warnings
from edge.statement.wording import energy_phrase, machine_details
from tests.edge import boards
from tests.edge.evidence.test_energy import span, watched
from tests.edge.test_page import Page, document

CHANNELS = {
    "mw.VDD_GPU_SOC": lambda t: 4000.0 + 2000 * (t > 2),
    "mw.VDD_CPU_CV": 1000.0,
    "mw.VIN_SYS_5V0": 3000.0,
    "mw.VDDQ_VDD2_1V8AO": 700.0,
    "mhz.gpu": 1300.5,
    "celsius.tj": lambda t: 50 + t,
    "celsius.cv0": np.nan,
    "s.busy": lambda t: t,
    "s.own": lambda t: 0.9 * t,
    "s.steal": 0.0,
}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> "tuple[dict[str, Any], Samples]":
    """The predicate's part of an AGX Orin, and its samples."""
    state = snapshot(boards.unpack("agx-orin", tmp_path_factory.mktemp("board")))
    samples = watched(8, CHANNELS, about={"wall_s": 8.0, "cpu_s": 0.04, "ranges": {}, "unreadable": []})
    during = {"what": "single-stream", "span_ns": list(span(3, 7))}
    during |= sample_summary(samples, span(3, 7), idle=span(0, 1.9), inferences=1000)
    warnings = machine_warnings(state, during, state, 0.5)
    return {"machine": {"before": state, "during": during, "after": state}, "warnings": warnings}, samples


def rendered(part: "dict[str, Any]", samples: "Samples | None") -> Page:
    made = copy.deepcopy(document())
    for entry in made["verified"]:
        entry["predicate"] |= part
        entry["watched"] = samples
    return Page(page.render(made))


def test_warnings_energy_and_what_was_not_read(recorded: "tuple[dict[str, Any], Samples]") -> None:
    text = rendered(*recorded).text
    assert "unsteady" in text and "coefficient of variation 50.0 %" in text
    assert "NVIDIA Jetson AGX Orin Developer Kit" in text and "name MAXN" in text
    assert "40 mJ on VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0; 8 mJ above idle" in text
    assert "temperature of cv0" in text
    assert "81 in 4.0" in text


def test_a_chart_a_quantity_with_the_timed_part_shaded(recorded: "tuple[dict[str, Any], Samples]") -> None:
    part, samples = recorded
    read = rendered(part, samples)
    labels = [a["aria-label"] for name, a in read.elements if name == "svg" and "over time" in a.get("aria-label", "")]
    per_artifact = len(labels) // len(document()["verified"])
    assert per_artifact == 3
    assert labels[0].startswith("Power of VDD_GPU_SOC, VDD_CPU_CV, VIN_SYS_5V0 over time")
    assert any(a.get("class") == "shaded" for name, a in read.elements if name == "rect")
    assert not any("over time" in a.get("aria-label", "") for _, a in rendered(part, None).elements)


def test_no_section_for_a_statement_without_evidence() -> None:
    assert "The machine while it measured" not in Page(page.render(document())).text


def test_a_line_stays_in_its_frame_and_is_thinned() -> None:
    t = np.linspace(0, 100, 5000)
    made = str(svg.over_time({"worst": (t, np.sin(t))}, (10.0, 500.0), "label"))
    points = re.search(r'points="([^"]+)"', made)
    assert points is not None
    places = np.array([pair.split(",") for pair in points[1].split()], float)
    assert len(places) == svg.POINTS
    assert (places[:, 0] >= svg.LEFT).all() and (places[:, 0] <= svg.RIGHT).all()
    assert (places[:, 1] >= svg.TOP).all() and (places[:, 1] <= svg.BOTTOM).all()
    assert (np.diff(places[:, 0]) > 0).all()
    flat = svg.over_time({"clean": (np.array([1.0]), np.array([5.0]))}, None, "one point")
    assert "nan" not in str(flat) and "inf" not in str(flat)


def test_a_folder_without_samples_has_none(tmp_path: Path) -> None:
    assert page.watched(tmp_path) is None


def test_the_text_of_a_statement(recorded: "tuple[dict[str, Any], Samples]") -> None:
    part, _ = recorded
    assert energy_phrase(part["machine"]) == "40 mJ an image on VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0, 8 mJ above idle"
    text = "\n".join(machine_details(part["machine"]))
    assert "board     NVIDIA Jetson AGX Orin Developer Kit, JetPack 6.2.2, L4T 36.5.0" in text
    assert "mode      MAXN (0), clocks held" in text and "heat      tj 55 (53 to 57) °C" in text
    assert "unread    temperature of cv0" in text
