"""Coverage of the protocol, each part taken away in turn."""

from typing import Any

import pytest

from edge.statement.statement import as_json
from edge.verify.findings import PARTS, coverage

ATTACKS = [
    {"name": f"{kind}@{source}", "kind": kind, "source": source, "where": where}
    for kind, source, where in (
        ("white-box", "q", "A"),
        ("white-box", "s", "B"),
        ("bpda", "onnx", "C"),
        ("margin", "q", "A"),
        ("temperature", "q", "D"),
        ("differential", "q", "A"),
        ("margin", "s", "B"),
        ("bpda", "other", "B"),
    )
]


def covered(attacks: list[dict[str, str]], **changed: Any) -> dict[str, dict[str, Any]]:
    given = {"itself": "onnx", "twin": "q", "student": "s", "ran": ["square", "rays"]} | changed
    return {part.part: as_json(part) for part in coverage(attacks, **given)}


def test_everything_covered_and_by_what() -> None:
    found = covered(ATTACKS)
    assert list(found) == list(PARTS) == list("abcdef")
    assert all(record["covered"] and record["what"] == PARTS[part] for part, record in found.items())
    assert [record["attacks"] for record in found.values()] == [
        ["white-box@q"],
        ["white-box@s"],
        ["bpda@onnx"],
        ["square", "rays"],
        ["margin@q", "temperature@q"],
        ["differential@q"],
    ]
    assert [record["where"] for record in found.values()] == ["A", "B", "C", "this device", "A; D", "A"]


@pytest.mark.parametrize(
    ("gone", "part", "why"),
    [
        ("white-box@q", "a", "the attack set has no white-box attack on q"),
        ("white-box@s", "b", "the attack set has no white-box attack on s"),
        ("bpda@onnx", "c", "the attack set has no bpda attack on onnx"),
        ("margin@q", "e", "the attack set has no margin attack on q"),
        ("temperature@q", "e", "the attack set has no temperature attack on q"),
        ("differential@q", "f", "the attack set has no differential attack on q"),
    ],
)
def test_what_is_missing_is_told(gone: str, part: str, why: str) -> None:
    found = covered([attack for attack in ATTACKS if attack["name"] != gone])
    assert [name for name, record in found.items() if not record["covered"]] == [part]
    assert found[part]["where"] == why and found[part]["attacks"] == []


@pytest.mark.parametrize("ran", [["square"], ["rays"], []])
def test_both_attacks_without_gradients_are_needed(ran: list[str]) -> None:
    record = covered(ATTACKS, ran=ran)["d"]
    assert not record["covered"] and record["attacks"] == []
    assert {name for name in ("square", "rays") if f"{name} did not run" in record["where"]} == {"square", "rays"} - {
        *ran
    }


def test_a_float_artifact_needs_no_differential_images() -> None:
    record = covered(ATTACKS, twin="s")["f"]
    assert record["covered"] and record["attacks"] == [] and record["where"].startswith("not applicable")


def test_strangers_are_covered_by_nothing_of_theirs() -> None:
    found = covered(ATTACKS, itself=None, twin=None)
    assert {part for part, record in found.items() if record["covered"]} == {"b", "d"}
    assert found["c"]["where"] == "the attack set does not hold this artifact"
    assert found["e"]["where"] == "the attack set does not hold the twin of this artifact"
    assert {part for part, record in covered(ATTACKS, itself=None).items() if not record["covered"]} == {"c"}


def test_a_float_artifact_attacked_without_a_student_lacks_nothing() -> None:
    found = covered(ATTACKS, student=None, is_float=True)
    assert all(record["covered"] for record in found.values())
    for part in "bf":
        assert found[part]["attacks"] == [] and found[part]["where"].startswith("not applicable: the artifact is a flo")


def test_a_quantized_artifact_attacked_without_a_student_lacks_two_parts() -> None:
    found = covered(ATTACKS, student=None)
    assert [part for part, record in found.items() if not record["covered"]] == ["b", "f"]
    assert found["b"]["where"] == found["f"]["where"] == "the attack set was made without a float student"


def test_an_artifact_without_a_twin_is_reached_by_attacks_without_gradients_alone() -> None:
    why = "no gradient is known of its operator Det"
    for student, is_float in (("s", False), (None, True)):
        found = covered(ATTACKS, twin=None, student=student, is_float=is_float, no_twin=why, itself="blind")
        assert {part for part, record in found.items() if record["covered"]} == ({"d", "b"} if student else {"d"})
        assert all(found[part]["where"] == f"no twin: {why}" for part in "ace")
    assert found["b"]["where"] == "the attack set was made without a float student"
