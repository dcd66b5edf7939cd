"""The report's page: pictures and charts against naive readers, escaping, missing parts, sameness."""

import copy
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.report import page, page_images, svg
from compress.report.markup import Html, TableColumn, element, html_table
from edge.core import readable
from tests.compress.page_reader import Page, decode
from tests.compress.report_fixture import N, loose_statement, samples_ns

HOSTILE = "<script>alert(\"x\")</script> & 'y' <!--"
CSS = Path(page.__file__).with_name("page.css").read_text()


def document(missing: str = "") -> dict[str, Any]:
    return {
        "title": "a run",
        "verified": [page.verified_entry("onnx int8", loose_statement(missing), samples_ns(90_000))],
    }


def evidence() -> dict[str, Any]:
    """Six 4×4 images: 0 wrong when clean, 1 and 4 broken by the second attack only, 2 by both, 3 and 5 held."""
    rng = np.random.default_rng(0)
    clean = rng.integers(40, 200, (6, 1, 4, 4), dtype=np.uint8)
    return {
        "index": np.arange(100, 106),
        "labels": np.arange(6),
        "clean_predictions": np.array([9, 1, 2, 3, 4, 5]),
        "clean": clean,
        "attacks": ["first", "second"],
        "adversarial": np.stack([clean + np.uint8(7), clean - np.uint8(11)]),
        "broken": np.array([[1, 0, 1, 0, 0, 0], [1, 1, 1, 0, 1, 0]], bool),
        "predictions": np.array([[8, 1, 7, 3, 4, 5], [-1] * 6]),
    }


# ---------------------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 7), (1, 1, 1), (3, 1, 9)])
def test_png_reads_back(shape: tuple[int, int, int]) -> None:
    image = np.random.default_rng(sum(shape)).integers(0, 256, shape, dtype=np.uint8)
    np.testing.assert_array_equal(decode(page_images.encode(image)), image)


@pytest.mark.parametrize("image", [np.zeros((1, 2, 2)), np.zeros((2, 2, 2), np.uint8), np.zeros((2, 2), np.uint8)])
def test_png_refuses_what_it_cannot_hold(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="PNG takes uint8"):
        page_images.encode(image)


def test_images_of_two_channels_are_shown_by_their_mean() -> None:
    image = np.stack([np.full((3, 5), 10, np.uint8), np.full((3, 5), 21, np.uint8)])
    assert page_images.data_uri(image) == page_images.data_uri(np.full((1, 3, 5), 16, np.uint8))


def test_difference_against_a_loop() -> None:
    found = evidence()
    clean, moved = found["clean"][1], found["adversarial"][1, 1]
    shown = page_images.difference(clean, moved, 3.0)
    for before, after, grey in zip(clean.ravel().tolist(), moved.ravel().tolist(), shown.ravel().tolist(), strict=True):
        assert grey == 128 + 3 * (after - before)
    assert (page_images.difference(clean, clean, 3.0) == 128).all()
    far = page_images.difference(np.array([[[0, 255]]], np.uint8), np.array([[[255, 0]]], np.uint8), 3.0)
    assert far.ravel().tolist() == [255, 0]


def test_chosen_images() -> None:
    tiles = page_images.choose_images(evidence(), broken=2, held=1)
    assert [(t["index"], t["attack"], t["broken"]) for t in tiles] == [
        (101, "second", True),
        (102, "first", True),
        (103, "first", False),
    ]
    assert [t["adversarial_prediction"] for t in tiles] == [None, 7, 3]
    np.testing.assert_array_equal(tiles[0]["adversarial"], evidence()["adversarial"][1, 1])
    other = evidence()
    other["predictions"][0, 2] = 2  # of another run, which had this image right: not what was verified
    assert page_images.choose_images(other, broken=2)[1]["adversarial_prediction"] is None


def test_images_of_two_channels_are_left_out() -> None:
    odd = evidence()
    odd["clean"] = np.concatenate([odd["clean"]] * 2, 1)
    assert page_images.choose_images(odd) == []


def test_pictures_on_the_page() -> None:
    shipped = page.verified_entry("onnx int8", loose_statement(), samples_ns(90_000), evidence())
    read = Page(page.render({"title": "a run", "verified": [shipped]}))
    found = read.pictures()
    assert len(found) == 3 * 5
    np.testing.assert_array_equal(found[0], evidence()["clean"][1])
    np.testing.assert_array_equal(found[1], evidence()["adversarial"][1, 1])
    assert (found[2] < 128).all()  # moved down by 11
    assert "amplified 3.2 ×" in read.text
    assert all(image["alt"] for image in read.all("img"))


# ---------------------------------------------------------------------------------------------- charts


def _per_cent(text: str) -> float:
    return float(text.removesuffix("%"))


def test_bars_are_as_long_as_their_shares() -> None:
    rows = [
        ("one", [svg.Bar("clean", 0.97), svg.Bar("worst", 0.5, (0.4, 0.625), True)]),
        ("two", [svg.Bar("pgd", 0.25)]),
    ]
    read = Page(svg.bars(rows, "a chart"))
    lengths = [_per_cent(bar["width"]) / svg.SPAN for bar in read.all("rect")]
    assert lengths == pytest.approx([0.97, 0.5, 0.25], abs=1e-4)
    whisker = [line for line in read.all("line") if line["class"] == "whisker"]
    ends = [(_per_cent(line["x1"]) / svg.SPAN, _per_cent(line["x2"]) / svg.SPAN) for line in whisker]
    assert ends == [pytest.approx((0.4, 0.625), abs=1e-4)]
    assert [bar["class"] for bar in read.all("rect")] == ["clean", "worst bound", "pgd"]
    assert "97.0 %" in read.text
    assert "≤ 50.0 %" in read.text


def test_histogram_against_counting() -> None:
    values = np.array([0.1, 0.5, 0.5, 0.5, 2.2, 9.99, 10.0])
    read = Page(svg.histogram(values, {"p50": 1.0}, 0.1, 10.0, "ms", "a chart"))
    counted = [0] * 100
    for value in values.tolist():
        counted[min(99, int(50 * (math.log10(value) + 1)))] += 1  # two decades over 100 bins
    columns = read.all("rect")
    assert [float(c["height"]) / 30 for c in columns] == pytest.approx([n for n in counted if n], abs=1e-3)
    places = [_per_cent(c["x"]) / svg.SPAN for c in columns]
    assert places == pytest.approx([k / 100 for k, n in enumerate(counted) if n], abs=1e-4)
    (mark,) = [line for line in read.all("line") if line["class"] == "mark"]
    assert _per_cent(mark["x1"]) / svg.SPAN == pytest.approx(0.5)
    assert [text for text in read.texts if text[0].isdigit()] == ["0.1", "0.2", "0.5", "1", "2", "5", "10"]


def test_a_single_slow_call_is_seen() -> None:
    values = np.append(np.full(999, 0.05), 12.0)
    columns = Page(svg.histogram(values, {}, 0.04, 13.0, "ms", "a chart")).all("rect")
    assert [float(c["height"]) for c in columns] == [90.0, svg.HAIR]


@pytest.mark.parametrize(
    ("low", "high", "values"),
    [
        (0.04, 60, [0.1, 1, 10]),
        (0.04, 0.3, [0.05, 0.1, 0.2]),
        (0.101, 0.119, [0.105, 0.11, 0.115]),
        (1, 5, [1, 2, 5]),
    ],
)
def test_ticks_of_a_logarithmic_axis(low: float, high: float, values: list[float]) -> None:
    assert svg.log_values(low, high) == pytest.approx(values)


@given(st.floats(1e-6, 1e6), st.floats(1e-3, 1e3))
def test_round_values_are_round_and_inside(low: float, width: float) -> None:
    high = low * (1 + width)
    found = svg.round_values(low, high)
    assert 1 <= len(found) <= 7
    assert all(low * (1 - 1e-6) <= value <= high * (1 + 1e-6) for value in found)
    if len(found) > 1:
        step = found[1] - found[0]
        leading = step / 10 ** np.floor(np.log10(step * (1 + 1e-6)))
        assert min(abs(leading - digit) for digit in (1, 2, 5)) < 1e-3


def test_curves_rise_with_their_values() -> None:
    read = Page(svg.curves({"clean": [(1, 0.0), (2, 0.5), (5, 1.0)]}, 2, "a chart"))
    (line,) = read.all("polyline")
    (x1, y1), (x2, y2), (x5, y5) = [tuple(map(float, point.split(","))) for point in line["points"].split()]
    assert (y1 - y2) == pytest.approx(y2 - y5)
    assert y1 > y2 > y5
    assert (x5 - x1) == pytest.approx(4 * (x2 - x1), abs=0.2)
    (dot,) = read.all("circle")
    assert (float(dot["cx"]), float(dot["cy"])) == (x2, y2)


def test_a_single_epoch_is_a_dot() -> None:
    assert len(Page(svg.curves({"clean": [(1, 0.3)], "pgd": [(1, 0.2)]}, None, "a chart")).all("circle")) == 2


# ---------------------------------------------------------------------------------------------- markup and numbers


def test_text_is_escaped_and_markup_is_not() -> None:
    made = element("p", HOSTILE, Html("<b>kept</b>"), title=HOSTILE, hidden=None)
    read = Page(made)
    assert read.texts[0] == HOSTILE
    assert [name for name, _ in read.elements] == ["p", "b"]
    assert read.elements[0][1] == {"title": HOSTILE}


def test_tables_name_their_headers() -> None:
    read = Page(html_table("A table", [TableColumn("name"), TableColumn("count", "number")], [["a", 1], [HOSTILE, 2]]))
    assert read.table("A table") == [["name", "count"], ["a", "1"], [HOSTILE, "2"]]
    assert [cell["scope"] for cell in read.all("th")] == ["col", "col", "row", "row"]


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (readable.percent(0.78055), "78.1 %"),
        (readable.percent(None), "–"),
        (readable.interval({"interval": (0.735, 0.8219)}), "73.5–82.2 %"),
        (readable.size(999), "999 B"),
        (readable.size(84_113), "84.1 kB"),
        (readable.size(999_600), "1.00 MB"),
        (readable.size(4_800_000), "4.80 MB"),
        (readable.size(512_000), "512 kB"),
        (readable.milliseconds(0.08124), "0.0812 ms"),
        (readable.milliseconds(1234.5), "1,234 ms"),
        (readable.duration(8.26), "8.3 s"),
        (readable.duration(125), "2 min 05 s"),
        (readable.duration(3725), "1 h 02 min"),
        (readable.number(75002), "75,002"),
        (readable.moment("2026-01-31T09:05:59+00:00"), "2026-01-31 09:05 UTC"),
        (readable.flat({"steps": 20, "loss": ["ce", None], "on": True}), "steps 20, loss ce, –, on yes"),
    ],
)
def test_numbers_as_people_read_them(made: str, text: str) -> None:
    assert made.replace("\u202f", " ") == text


# ---------------------------------------------------------------------------------------------- the page


def test_figures_are_those_of_the_statement() -> None:
    made = document()
    predicate = made["verified"][0]["predicate"]
    read = Page(page.render(made))
    robust, clean = predicate["figures"]["robust"], predicate["figures"]["clean"]
    assert f"{100 * robust['value']:.1f} %" in read.text
    assert f"{robust['count']} of {N} images" in read.text
    assert f"{100 * clean['interval'][0]:.1f}–{100 * clean['interval'][1]:.1f} %" in read.text
    assert "never a certificate" in read.text
    assert "upper bound" not in read.text
    rows = read.table("Attacks on onnx int8")[1:]
    assert [(row[0], row[4], row[5], row[6]) for row in rows] == [
        (a["name"], f"{a['broken']} of {N}", f"{100 * a['robust_accuracy']:.1f} %", str(a["alone"]))
        for a in predicate["attacks"]
    ]
    latency = dict(row[:2] for row in read.table("Latency of one call"))
    assert float(latency["p99"].removesuffix(" ms")) == pytest.approx(predicate["latency"]["p99_ms"], rel=5e-3)
    assert "p99.9" not in latency
    state = dict(row[:2] for row in read.table("Machine and runtime, before → after"))
    assert state["load"] == "0.4, 0.3, 0.2 → 0.9, 0.4, 0.2"
    assert state["cpu"] == "Example CPU 3000"


def test_an_upper_bound_is_never_shown_as_robust_accuracy() -> None:
    made = document("cd")
    read = Page(page.render(made))
    bound = made["verified"][0]["predicate"]["figures"]["upper_bound"]["value"]
    assert "Robust accuracy: upper bound only" in read.headings
    assert "Robust accuracy" not in read.headings
    assert f"≤ {100 * bound:.1f} %" in read.text
    assert "(c) BPDA through the artifact, (d) attacks without gradients" in read.text
    covered = {row[0]: row[2] for row in read.table("Protocol on onnx int8")[1:]}
    assert covered == {"(a)": "yes", "(b)": "yes", "(c)": "no", "(d)": "no", "(e)": "yes", "(f)": "yes"}


def test_an_alarm_that_fired_stands_at_the_top() -> None:
    quiet, fired = Page(page.render(document())), Page(page.render(document("d")))
    assert not quiet.all("p", **{"class": "alarm"})
    assert len(fired.all("p", **{"class": "alarm"})) == 1
    assert fired.text.index("gradient masking") < fired.text.index("Clean accuracy")


def test_requirements_are_told() -> None:
    judged = [
        {"text": "robust>=0.3", "passed": True, "why": "0.4"},
        {"text": "clean>=1", "passed": False, "why": "0.9"},
    ]
    read = Page(page.render({**document(), "requirements": judged}))
    assert re.search(r"not met\s+clean>=1", read.text)
    assert re.search(r"(?<!not )met\s+robust>=0.3", read.text)


def test_everything_from_data_is_escaped() -> None:
    made = document()
    made["title"] = HOSTILE
    made["notes"] = [HOSTILE]
    made["provenance"] = [{"stage": HOSTILE, "identity": HOSTILE, "command": HOSTILE, "versions": {HOSTILE: HOSTILE}}]
    made["facts"] = {HOSTILE: HOSTILE}
    made["verified"][0]["label"] = HOSTILE
    predicate = made["verified"][0]["predicate"]
    for at in (predicate["attacks"][0], predicate["protocol"][0], predicate["alarms"][0], predicate["artifact"]):
        at.update({key: HOSTILE for key, value in at.items() if isinstance(value, str)})
    predicate["latency"]["inside"] = HOSTILE
    predicate["machine"]["before"][HOSTILE] = predicate["runtime"]["name"] = HOSTILE
    text = page.render(made)
    read = Page(text)
    assert "<script" not in text
    assert "<!--" not in text
    assert read.headings[0] == HOSTILE
    assert read.text.count(HOSTILE) > 20


@pytest.mark.parametrize("missing", ["", "cd"])
def test_nothing_is_fetched_or_run(missing: str) -> None:
    text = page.render(document(missing))
    read = Page(text)
    addresses = [a[key] for _, a in read.elements for key in ("src", "href", "data", "action") if key in a]
    assert addresses
    assert all(address.startswith(("#", "data:image/png;base64,")) for address in addresses)
    assert not {"script", "link", "iframe", "object"} & {name for name, _ in read.elements}
    assert not re.search(r"url\(|@import|https?:", text)


def test_links_lead_to_sections() -> None:
    read = Page(page.render(document()))
    assert [link["href"] for link in read.all("a")] == [f"#{part['id']}" for part in read.all("section")]
    assert [part["id"] for part in read.all("section")] == ["attacks", "protocol", "latency"]


def test_a_document_of_a_title_alone() -> None:
    read = Page(page.render({"title": "a run"}))
    assert read.headings == ["a run"]
    assert "No artifact has been verified yet" in read.text
    assert not read.all("section")


def test_the_same_document_gives_the_same_bytes() -> None:
    first, second = page.render(document()), page.render(copy.deepcopy(document()))
    assert first == second
    other = document()
    other["verified"][0]["predicate"]["latency"]["p99_ms"] *= 1.5
    assert page.render(other) != first


def test_write_verified(tmp_path: Path) -> None:
    statement = loose_statement()
    path = page.write_verified(tmp_path, statement, samples_ns(90_000), evidence())
    assert path == tmp_path / "report.html"
    read = Page(path.read_text())
    assert read.headings[0] == "model.onnx, onnx int8"
    assert "exported" in [row[0] for row in read.table("Stages, from the first to the last")]
    assert dict(read.table("Data and threat"))["versions"] == "numpy 2.1.0, onnxruntime 1.31.1"
    assert len(read.pictures()) == 15
    without = Page(page.write_verified(tmp_path, statement, samples_ns(90_000)).read_text())
    assert without.pictures() == []
    assert "images" not in [part["id"] for part in without.all("section")]


# ---------------------------------------------------------------------------------------------- the style sheet


def _luminance(colour: str) -> float:
    """WCAG 2.1 relative luminance of `#rrggbb`."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_contrast(theme: int) -> None:
    block = re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)[theme]
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block))

    def contrast(one: str, other: str) -> float:
        low, high = sorted((_luminance(colours[one]), _luminance(colours[other])))
        return (high + 0.05) / (low + 0.05)

    for ground in ("paper", "panel"):
        assert all(contrast(name, ground) >= 4.5 for name in ("ink", "soft", "accent", "good", "bad", "warn"))
    assert all(contrast(name, "paper") >= 3 for name in ("clean", "pgd", "worst"))
