"""Scenarios on the report's page and in the statement's text: what was measured is there, what was not is not."""

import copy
from typing import Any

import pytest

from compress.report import svg
from compress.report.markup import join
from compress.report.page_evidence import scenarios
from edge.statement import statement, wording
from edge.statement.statement import Statement
from tests.compress.fake_stages import TIMED
from tests.compress.page_reader import Page
from tests.compress.report_fixture import loose_statement

ROW = {"n": 9, "seconds": 1.0, "p50_ms": 2.0, "p99_ms": 3.0}
CAMERA = {
    "fps": 30.0,
    "frames": 100,
    "answered": 97,
    "dropped": 3,
    "missed": 5,
    "on_time": 0.92,
    "deadline_ms": 33.3,
    **{f"{name}_ms": 4.5 for name in ("p50", "p90", "p95", "p99", "max", "jitter", "service_p50", "wake_p99")},
    "rule": "one waits <here>",
}
CONDITIONS = {**TIMED["conditions"], "cuda_graph": True, "spin_wait": None, "load": {"processes": 2}}


def measured() -> dict[str, Any]:
    stated = copy.deepcopy(loose_statement())
    stated["predicate"]["latency"] |= {
        "sweep": [{**ROW, "batch_size": 1, "images_per_s": 500.0}, {**ROW, "batch_size": 8, "images_per_s": 2000.0}],
        "offline": {**ROW, "batch_size": 8, "images_per_s": 2000.0},
        "camera": [CAMERA],
        "parts": {"n": 5, "h2d_ms": 0.25, "compute_ms": 1.5, "d2h_ms": 0.125, "host_ms": 0.5, "total_ms": 2.375},
        "preprocess_ms": {"p50_ms": 0.75, "p99_ms": 1.0},
        "conditions": CONDITIONS,
        "asked_again": {"n": 64, "different": 1},
        "memory": {"peak_rss_bytes": 123_000_000, "since": "opening the runtime", "artifacts": 1},
    }
    stated["predicate"]["preprocess"] = {
        "name": "camera:crop",
        "sha256": None,
        "frames": "x",
        "same_prediction": 0.975,
        "largest_change": 3.0,
        "clean": statement.figure(40, 50),
    }
    return stated


def read(stated: dict[str, Any]) -> Page:
    return Page(join(scenarios([{"label": "onnx <int8>", "predicate": stated["predicate"]}])))


def test_everything_that_was_measured_is_on_the_page() -> None:
    page = read(measured())
    for text in (
        "Throughput by batch size",
        "1 image a call",
        "8 images a call",
        "92.0",
        "one waits <here>",
        "copy in",
        "camera:crop",
        "40 of 50",
        "97.5",
        "1 of 64 differ",
        "123",
        "processes 2",
        "onnx <int8>",
    ):
        assert text in page.text, text
    assert page.text.count("2,000 · ") == 1, "offline's size is one of the sweep, told once"


def test_a_statement_of_single_queries_alone_has_none_of_it() -> None:
    predicate = loose_statement()["predicate"]
    (how,) = scenarios([{"label": "a", "predicate": predicate}])
    assert "How latency was measured" in str(how)
    assert list(scenarios([{"label": "a", "predicate": {**predicate, "latency": {"n": 1}}}])) == []
    assert "camera" not in wording.statement_text(Statement.of(loose_statement()))


def test_bars_are_as_long_as_their_amounts() -> None:
    page = Page(svg.amounts([("one", [(500.0, "x")]), ("two", [(2000.0, "y"), (1000.0, "z")])], "rates"))
    lengths = [float(bar["width"].removesuffix("%")) for bar in page.all("rect")]
    assert lengths[1] == pytest.approx(4 * lengths[0], rel=1e-3) and lengths[1] == pytest.approx(
        2 * lengths[2], rel=1e-3
    )
    assert lengths[1] < 100


def test_the_text_tells_a_line_each() -> None:
    lines = wording.statement_text(Statement.of(measured())).splitlines()
    from_arrival = "p50 4.500 ms, p99 4.500 ms from the scheduled arrival"
    through = "through it 80.0% of clean images right, 97.5% of predictions stay"
    for line in (
        "offline     2,000 images/s at batch 8 over 1.0 s",
        f"camera      30 frames/s: {from_arrival}; of 100 frames 3 dropped, 5 later than 33.3 ms",
        "load        2 busy processes beside all that was timed",
        f"preprocess  camera:crop: p50 0.750 ms, inside the latency; {through}",
    ):
        assert line in lines
