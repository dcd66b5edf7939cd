"""Requirements: what is read from a text, what is refused, and which end of an interval decides."""

import copy
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import edge.statement.statement
from compress.statement_check import statement_schema
from edge.core.errors import CompressError
from edge.statement import gate, gate_formats
from edge.statement.statement import ALARMS, Statement, figure
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
    found = gate.parse_requirement(text)
    assert (found.name, found.op) == want[:2] and found.value == pytest.approx(want[2])
    assert gate.parse_requirement(str(found)) == found


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
        gate.parse_requirement(text)
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
    (outcome,) = gate.judge_requirements(Statement.of(statement()), [gate.parse_requirement(text)])
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
    (outcome,) = gate.judge_requirements(Statement.of(bounded()), [gate.parse_requirement(text)])
    assert not outcome.passed and outcome.got is None
    assert outcome.why == "only an upper bound of 0.5000, not covered: (c) nobody ran c; (e) nobody ran e"


def test_an_unmeasured_agreement_meets_no_requirement() -> None:
    stated = statement()
    stated["predicate"]["agreement"] = None
    for text in ("agreement>=0", "agreement<=1"):
        (outcome,) = gate.judge_requirements(Statement.of(stated), [gate.parse_requirement(text)])
        assert not outcome.passed and outcome.got is None and outcome.why.startswith("not measured")


@pytest.mark.parametrize("name", ["clean", "robust"])
def test_an_accuracy_that_a_constant_classifier_reaches_meets_no_requirement(name: str) -> None:
    """Three classes, 100 of 300 images each: 33.3 % is above 20 %, and nothing."""
    stated = statement()
    figures = stated["predicate"]["figures"]
    figures |= {"clean": figure(100, 300), "robust": figure(100, 300), "chance": figure(100, 300)}
    requirement = gate.parse_requirement(f"{name}>=0.2")
    (outcome,) = gate.judge_requirements(Statement.of(stated), [requirement])
    assert not outcome.passed and outcome.why.startswith("not above chance, a constant classifier gets 0.3333; ")
    (below,) = gate.judge_requirements(Statement.of(stated), [gate.parse_requirement(f"{name}<=0.5")])
    assert below.passed
    figures[name] = figure(130, 300)
    (above,) = gate.judge_requirements(Statement.of(stated), [requirement])
    assert above.passed


def test_junit_says_what_failed(tmp_path: Path) -> None:
    requirements = [gate.parse_requirement(text) for text in ("clean>=0.8", "robust>=0.9", "p50_ms<2")]
    cases = gate.requirement_cases(gate.judge_requirements(Statement.of(statement()), requirements))
    gate_formats.junit(cases, tmp_path / "gate.xml")
    suite = ElementTree.parse(tmp_path / "gate.xml").getroot()
    assert (suite.tag, suite.get("tests"), suite.get("failures")) == ("testsuite", "3", "1")
    assert [case.get("name") for case in suite] == ["clean>=0.8", "robust>=0.9", "p50_ms<2"]
    assert [len(case) for case in suite] == [0, 1, 0]
    assert "lower end" in str(suite[1][0].get("message"))


# ---------------------------------------------------------------------------------------------- alarms, budgets


def alarmed(*names: str) -> dict[str, Any]:
    stated = copy.deepcopy(statement())
    alarm = {"count": 4, "threshold": 3, "interval": None, "meaning": "because"}
    stated["predicate"]["alarms"] = [{**alarm, "name": name, "fired": name in names} for name in ALARMS]
    return stated


@pytest.mark.parametrize("name", ALARMS)
@pytest.mark.parametrize("text", ["robust>=0", "clean>=0", "robust<=1"])
def test_a_fired_alarm_fails_an_accuracy_unless_it_is_allowed(name: str, text: str) -> None:
    (outcome,) = gate.judge_requirements(Statement.of(alarmed(name)), [gate.parse_requirement(text)])
    assert not outcome.passed and f"alarm fired: {name};" in outcome.why
    (outcome,) = gate.judge_requirements(
        Statement.of(alarmed(name)), [gate.parse_requirement(text)], gate.allowed_names([name.replace(" ", "-")])
    )
    assert outcome.passed and "alarm" not in outcome.why
    other = next(one for one in ALARMS if one != name)
    (outcome,) = gate.judge_requirements(
        Statement.of(alarmed(name, other)), [gate.parse_requirement(text)], gate.allowed_names([name])
    )
    assert not outcome.passed and other in outcome.why and name not in outcome.why


def test_an_alarm_fails_no_other_requirement_and_a_silent_one_none() -> None:
    texts = ["agreement>=1", "p50_ms<=2", "size_bytes<=100000"]
    assert all(
        outcome.passed
        for outcome in gate.judge_requirements(
            Statement.of(alarmed(*ALARMS)), [gate.parse_requirement(text) for text in texts]
        )
    )
    assert gate.judge_requirements(Statement.of(alarmed()), [gate.parse_requirement("robust>=0.3")])[0].passed


def test_an_alarm_never_lifts_what_fails_anyway() -> None:
    (outcome,) = gate.judge_requirements(
        Statement.of(alarmed("masking")), [gate.parse_requirement("robust>=0.9")], gate.allowed_names(["masking"])
    )
    assert not outcome.passed


def test_an_unknown_alarm_is_refused() -> None:
    with pytest.raises(CompressError, match="unknown alarm 'maskin'; did you mean 'masking'"):
        gate.allowed_names(["maskin"])


def undecided() -> dict[str, Any]:
    """40 of 200 images are open: between 60 and 100 stand."""
    stated = copy.deepcopy(statement())
    figures = stated["predicate"]["figures"]
    low, high = edge.statement.statement.figure(60, 200), edge.statement.statement.figure(100, 200)
    open_ = {"budget_seconds": 60.0, "undecided": 40, "if_all_fall": low, "if_all_stand": high}
    figures |= {"robust": None, "upper_bound": high, "inconclusive": open_}
    return stated


@pytest.mark.parametrize(("text", "passed"), [("robust>=0.23", True), ("robust>=0.25", False), ("robust<=0.6", True)])
def test_of_an_inconclusive_figure_the_pessimistic_bound_is_judged(text: str, passed: bool) -> None:
    stated = undecided()
    jsonschema.Draft202012Validator(statement_schema()).validate(
        stated | {"predicate": {**stated["predicate"], **whole_machine(stated)}}
    )
    (outcome,) = gate.judge_requirements(Statement.of(stated), [gate.parse_requirement(text)])
    assert outcome.passed is passed
    bound = "if_all_stand" if "<" in text else "if_all_fall"
    end = 1 if "<" in text else 0
    assert outcome.got == stated["predicate"]["figures"]["inconclusive"][bound]["interval"][end]
    assert "inconclusive, 40 images undecided when the budget of 60 s ended" in outcome.why


def whole_machine(stated: dict[str, Any]) -> dict[str, Any]:
    """What the fixture leaves empty and the schema does not."""
    state = {"cores": {"visible": 1, "allowed": 1, "quota": None}, "python": "3", "runtimes": {}}
    for key in ("cpu", "isa", "governor", "mhz", "load", "memory_available_bytes", "kernel"):
        state[key] = None
    return {"machine": {"before": state, "after": state}, "lineage": [{"stage": "exported", "identity": "c" * 64}]}


def test_what_is_not_covered_stays_a_bound_whatever_the_budget() -> None:
    stated = undecided()
    stated["predicate"]["protocol"][2] |= {"covered": False, "attacks": [], "where": "nobody"}
    (outcome,) = gate.judge_requirements(Statement.of(stated), [gate.parse_requirement("robust>=0")])
    assert not outcome.passed and outcome.why.startswith("only an upper bound of 0.5000, not covered: (c) nobody")


def test_the_text_says_both_bounds() -> None:
    said = edge.statement.wording.statement_text(Statement.of(undecided()))
    assert "inconclusive, 40 images undecided when the budget of 60 s ended: 30.0% (60 of 200" in said
    assert "if all of them fall, 50.0% (100 of 200" in said
