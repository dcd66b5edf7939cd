"""Requirements: what is read from a text, what is refused, and which end of an interval decides."""

import copy
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from compress.errors import CompressError
from edge import gate
from tests.compress.fake_stages import statement

LOW, HIGH = 0.45, 0.55  # of the fixture's robust figure, 0.5


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("robust>=0.3", ("robust", ">=", 0.3)),
        ("  clean > 97.5 % ", ("clean", ">", 0.975)),
        ("agreement>=100%", ("agreement", ">=", 1.0)),
        ("robust<=1", ("robust", "<=", 1.0)),
        ("p99_ms<2.5e-1", ("p99_ms", "<", 0.25)),
        ("size_bytes<=100000", ("size_bytes", "<=", 100_000)),
        ("images_per_s>=1000", ("images_per_s", ">=", 1000)),
    ],
)
def test_what_is_read(text: str, want: tuple[str, str, float]) -> None:
    found = gate.parse(text)
    assert (found.name, found.op) == want[:2] and found.value == pytest.approx(want[2])
    assert gate.parse(str(found)) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("robust>=30", "robust is a share, at most 1; write 0.3 or 30%"),
        ("agreement>=2", "agreement is a share"),
        ("clean>=101%", "clean is a share"),
        ("p50_ms<=5%", "p50_ms is no share, so it has no %; give the number alone"),
        ("size_bytes<=10%", "size_bytes is no share"),
        ("robust>=-0.1", "no number from 0 up"),
        ("p50_ms<=1e999", "no number from 0 up"),
        ("p50_ms<=1e", "no number from 0 up"),
        ("robust==0.3", "is not understood"),
        ("robust>=", "is not understood"),
        ("size_bytes<=1_000", "is not understood"),
        ("robustness>=0.3", "unknown 'robustness'; did you mean 'robust'"),
        ("p999_ms<=1", "did you mean 'p99_ms'"),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(CompressError, match=message) as fault:
        gate.parse(text)
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize(
    ("text", "passed"),
    [
        (f"robust>={LOW}", True),
        (f"robust>{LOW}", False),
        (f"robust>={LOW + 0.01}", False),
        ("robust>=0.5", False),
        (f"robust<={HIGH}", True),
        (f"robust<{HIGH}", False),
        (f"robust<={HIGH - 0.01}", False),
        ("clean>=0.84", True),
        ("clean>=0.86", False),
        ("agreement>=1", True),
        ("agreement>1", False),
        ("p50_ms<=1.25", True),
        ("p50_ms<1.25", False),
        ("p99_ms<=1", False),
        ("size_bytes<=96300", True),
        ("size_bytes<96300", False),
        ("images_per_s>=900", True),
        ("images_per_s>901", False),
    ],
)
def test_the_cautious_end_decides(text: str, passed: bool) -> None:
    (outcome,) = gate.judge(statement(), [gate.parse(text)])
    assert outcome.passed is passed
    assert outcome.line().startswith("passed" if passed else "FAILED") and str(outcome.requirement) in outcome.line()
    if text.startswith("robust"):
        assert outcome.got == pytest.approx(LOW if ">" in text else HIGH)
        assert ("lower" if ">" in text else "upper") in outcome.why


def bounded() -> dict[str, Any]:
    """Only an upper bound, parts (c) and (e) not covered."""
    stated = copy.deepcopy(statement())
    figures = stated["predicate"]["figures"]
    figures["upper_bound"], figures["robust"] = figures["robust"], None
    for part in stated["predicate"]["protocol"]:
        if part["part"] in "ce":
            part |= {"covered": False, "attacks": [], "where": f"nobody ran {part['part']}"}
    return stated


@pytest.mark.parametrize("text", ["robust>=0", "robust>=0.3", "robust<=1"])
def test_an_upper_bound_meets_no_requirement_and_says_why(text: str) -> None:
    (outcome,) = gate.judge(bounded(), [gate.parse(text)])
    assert not outcome.passed and outcome.got is None
    assert outcome.why == "only an upper bound of 0.5000, not covered: (c) nobody ran c; (e) nobody ran e"


def test_an_unmeasured_agreement_meets_no_requirement() -> None:
    stated = statement()
    stated["predicate"]["agreement"] = None
    for text in ("agreement>=0", "agreement<=1"):
        (outcome,) = gate.judge(stated, [gate.parse(text)])
        assert not outcome.passed and outcome.got is None and outcome.why.startswith("not measured")


def test_junit_says_what_failed(tmp_path: Path) -> None:
    requirements = [gate.parse(text) for text in ("clean>=0.8", "robust>=0.9", "p50_ms<2")]
    gate.junit(gate.judge(statement(), requirements), tmp_path / "gate.xml")
    suite = ElementTree.parse(tmp_path / "gate.xml").getroot()
    assert (suite.tag, suite.get("tests"), suite.get("failures")) == ("testsuite", "3", "1")
    assert [case.get("name") for case in suite] == ["clean>=0.8", "robust>=0.9", "p50_ms<2"]
    assert [len(case) for case in suite] == [0, 1, 0]
    assert "lower end" in str(suite[1][0].get("message"))
