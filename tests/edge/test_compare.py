"""Comparison with a baseline: planted pairs, the three verdicts, what is refused, what is named."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from edge.core.errors import CompressError
from edge.statement import comparison
from edge.statement.comparison import JudgedArtifact, compare_verified
from edge.statement.gate import GateJudgement, GateTerms
from edge.statement.gate_formats import FAILED, PASSED, SKIPPED
from tests.edge.judged import folder

N = 1000


def held(fallen: "range | list[int]" = range(0)) -> np.ndarray:
    """bool (N,): broken at those places."""
    mask = np.zeros(N, bool)
    mask[list(fallen)] = True
    return mask


def pair(
    tmp_path: Path, new: "dict[str, Any] | None" = None, old: "dict[str, Any] | None" = None
) -> "list[JudgedArtifact]":
    plain: dict[str, Any] = {"right": np.ones(N, bool), "broken": {"pgd": held(range(300)), "square": held()}}
    made = [
        folder(tmp_path / "new", **{**plain, "sha256": "1" * 64, **(new or {})}),
        folder(tmp_path / "old", **{**plain, "sha256": "2" * 64, **(old or {})}),
    ]
    return [JudgedArtifact.read(path) for path in made]


def broken(fallen: "range | list[int]", square: "range | list[int]" = range(0)) -> dict[str, Any]:
    return {"broken": {"pgd": held(fallen), "square": held(square)}}


@pytest.mark.parametrize(
    ("fallen", "margin", "verdict"),
    [
        (range(300), 0.5, "not worse"),  # N images rule out a difference of 0.5 points when none differs
        (range(300), 0.3, "inconclusive"),
        (range(303), 0.5, "inconclusive"),
        (range(320), 0.5, "worse"),
        (range(320), 5, "not worse"),
        (range(280), 0.5, "not worse"),
        ([*range(290), *range(300, 310)], 0.5, "inconclusive"),  # as many lost as gained
    ],
)
def test_the_verdict_is_where_the_interval_lies(
    tmp_path: Path, fallen: "range | list[int]", margin: float, verdict: str
) -> None:
    found = compare_verified(*pair(tmp_path, broken(fallen)), margin_points=margin)
    low, high = found["robust"]["interval"]
    assert found["robust"]["verdict"] == found["verdict"] == verdict
    assert verdict == ("worse" if high < -margin / 100 else "not worse" if low >= -margin / 100 else "inconclusive")
    lost, gained = len(set(fallen) - set(range(300))), len(set(range(300)) - set(fallen))
    assert (found["robust"]["lost"], found["robust"]["gained"]) == (lost, gained)
    assert found["robust"]["difference"] == pytest.approx((gained - lost) / N)
    want = stats.binomtest(lost, lost + gained).pvalue if lost + gained else 1
    assert found["robust"]["p"] == pytest.approx(want)


def test_what_got_worse_is_named(tmp_path: Path) -> None:
    right = np.ones(N, bool)
    right[[500, 999]] = False
    found = compare_verified(*pair(tmp_path, {**broken([*range(290), 777, 777], [778, 777]), "right": right}))
    assert found["images"]["clean_lost"] == [1500, 1999]
    assert found["images"]["fallen"] == [
        {"index": 1500, "class": 0, "by": []},
        {"index": 1777, "class": 7, "by": ["pgd", "square"]},
        {"index": 1778, "class": 8, "by": ["square"]},
        {"index": 1999, "class": 9, "by": []},
    ]
    assert found["images"]["recovered"] == [1000 + i for i in range(290, 300)]
    by_name = {row["name"]: (row["lost"], row["gained"]) for row in found["attacks"]}
    assert by_name == {"pgd": (3, 10), "square": (4, 0)} and found["attacks"][0]["name"] == "square"
    robust = {row["class"]: (row["robust"]["lost"], row["robust"]["gained"]) for row in found["classes"]}
    assert robust == {k: (int(k in (0, 7, 8, 9)), 1) for k in range(10)}
    assert sum(row["n"] for row in found["classes"]) == N
    said = "\n".join(comparison.comparison_lines(found))
    assert (
        "square -0.40" in said and "1777 (class 7, pgd, square)" in said and "1500 (class 0, wrong when clean)" in said
    )
    assert "bytes differ, 111111111111 was 222222222222" in said and "p50 1.250 ms, was 1.250 ms" in said


def test_the_same_bytes_that_lose_nothing_are_not_worse_whatever_n(tmp_path: Path) -> None:
    made = pair(tmp_path, {"sha256": "2" * 64})
    found = compare_verified(*made, margin_points=0)
    assert found["same_bytes"] and found["verdict"] == "not worse"
    assert "same bytes" in comparison.comparison_lines(found)[0]
    (tmp_path / "other").mkdir()
    assert compare_verified(*pair(tmp_path / "other"), margin_points=0)["verdict"] == "inconclusive"


def test_undecided_images_widen_the_interval_to_both_ways(tmp_path: Path) -> None:
    open_ = held(range(900, 930))
    new, old = pair(tmp_path, {"undecided": open_})
    found = compare_verified(new, old, margin_points=1)
    assert found["robust"]["interval"][0] < -0.03 < 0 < found["robust"]["interval"][1]
    assert found["verdict"] == "inconclusive"
    assert compare_verified(old, new, margin_points=1)["robust"]["interval"][1] > 0.03
    assert compare_verified(old, new, margin_points=1)["verdict"] == "not worse"


def test_a_fired_alarm_is_never_not_worse_unless_it_is_allowed(tmp_path: Path) -> None:
    alarm = {"name": "masking", "fired": True, "count": 9, "threshold": 3, "interval": None, "meaning": "masked"}
    new, old = pair(tmp_path, {"alarms": [alarm]})
    found = compare_verified(new, old)
    assert found["robust"]["verdict"] == "inconclusive" and found["robust"]["doubts"] == ["alarm fired: masking"]
    assert "alarm fired: masking" in "\n".join(comparison.comparison_lines(found))
    assert compare_verified(new, old, allow=frozenset(["masking"]))["verdict"] == "not worse"
    assert compare_verified(old, new)["verdict"] == "not worse"  # the baseline's alarm flatters the baseline alone


def test_fewer_parts_of_the_protocol_are_never_not_worse(tmp_path: Path) -> None:
    gaps = [{"part": part, "what": "x", "covered": part != "c", "attacks": [], "where": "y"} for part in "abcdef"]
    new, old = pair(tmp_path, {"protocol": gaps})
    assert compare_verified(new, old)["robust"]["doubts"] == ["parts of the protocol run on the baseline alone: c"]
    assert (
        compare_verified(new, old)["verdict"] == "inconclusive" and compare_verified(old, new)["verdict"] == "not worse"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threat": {"norm": "linf", "eps": "8/255", "grid_radius": 8, "applied_to": "x"}}, "judged under linf eps 8/"),
        ({"data": {"name": "digits", "fingerprint": "e" * 8, "split": "s" * 8, "n": N}}, "data fingerprint eeee"),
        ({"data": {"name": "digits", "fingerprint": "f" * 8, "split": "t" * 8, "n": N}}, "split tttt"),
        ({"data": {"name": "digits", "fingerprint": "f" * 8, "split": "s" * 8, "n": 7}}, "images 7, "),
        ({"labels": np.arange(N) % 9}, "other images or labels"),
    ],
)
def test_what_cannot_be_paired_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    new, old = pair(tmp_path, old=change)
    with pytest.raises(CompressError, match=message) as fault:
        compare_verified(new, old)
    assert "\n" not in str(fault.value) and fault.value.exit_code == 2


def test_verdicts_that_are_missing_or_of_another_statement_are_refused(tmp_path: Path) -> None:
    new, _ = pair(tmp_path)
    table = tmp_path / "new" / "verdicts.npz"
    content = bytearray(table.read_bytes())
    content[len(content) // 2] ^= 1
    table.write_bytes(content)
    for where in (new.name, f"{new.name}/statement.json"):
        with pytest.raises(CompressError, match=r"verdicts\.npz: has sha256 .*the statement says"):
            JudgedArtifact.read(where)
    table.unlink()
    with pytest.raises(CompressError, match=r"a comparison by image needs the verdicts\.npz"):
        JudgedArtifact.read(new.name)
    with pytest.raises(CompressError, match="not readable as a statement"):
        JudgedArtifact.read(tmp_path / "nowhere")


def test_a_file_is_as_good_as_its_folder(tmp_path: Path) -> None:
    new, old = pair(tmp_path)
    by_file = JudgedArtifact.read(tmp_path / "old" / "statement.json")
    found, other = compare_verified(new, old), compare_verified(new, by_file)
    assert {**found, "baseline": None} == {**other, "baseline": None}


# ---------------------------------------------------------------------------------------------- terms


@pytest.mark.parametrize(
    ("fallen", "strict", "results"),
    [
        (range(300), False, [PASSED, PASSED]),
        (range(303), False, [PASSED, SKIPPED]),
        (range(303), True, [PASSED, FAILED]),
        (range(320), False, [PASSED, FAILED]),
    ],
)
def test_inconclusive_fails_only_when_strict(tmp_path: Path, fallen: range, strict: bool, results: "list[str]") -> None:
    pair(tmp_path, broken(fallen))
    terms = GateTerms.read(["clean>=0.5"], against=tmp_path / "old", strict=strict)
    judged = GateJudgement.of(tmp_path / "new", terms)
    cases = judged.cases("e1: ")
    assert [case.result for case in cases if case.group == "comparison"] == results
    assert cases[0].name == "e1: clean>=0.5" and cases[0].result == PASSED
    assert json.loads(json.dumps(judged.comparison)) == judged.comparison


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"margin": 1.0}, "--margin is about a comparison; give --against"),
        ({"against": "old", "margin": -1.0}, "--margin -1: percentage points are from 0 to 100"),
        ({"against": "old", "margin": float("nan")}, "--margin nan"),
        ({"allow": ["mask"]}, "unknown alarm 'mask'; did you mean 'masking'"),
    ],
)
def test_terms_that_make_no_sense_are_refused(tmp_path: Path, given: dict[str, Any], message: str) -> None:
    pair(tmp_path)
    if "against" in given:
        given = {**given, "against": tmp_path / "old"}
    with pytest.raises(CompressError, match=message):
        GateTerms.read([], **given)


def test_an_alarm_is_a_case_that_fails_where_an_accuracy_is_required(tmp_path: Path) -> None:
    alarm = {"name": "masking", "fired": True, "count": 9, "threshold": 3, "interval": None, "meaning": "masked"}
    pair(tmp_path, {"alarms": [alarm]})
    for require, allow, result in (
        (["robust>=0.1"], [], FAILED),
        (["p50_ms<=2"], [], SKIPPED),
        (["robust>=0.1"], ["masking"], SKIPPED),
    ):
        cases = GateJudgement.of(tmp_path / "new", GateTerms.read(require, allow)).cases()
        assert [case.result for case in cases if case.group == "alarm"] == [result]
        assert [case.result for case in cases if case.group == "requirement"] == [
            FAILED if result == FAILED else PASSED
        ]
