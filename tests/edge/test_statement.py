"""The statement: its form, what is refused when it is read, and what a person is told."""

import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from scipy import stats

import edge.statement.statement
from edge.core.errors import CompressError
from edge.statement.statement import Predicate, Statement, figure, read_statement
from edge.statement.wording import statement_details, statement_text
from tests.compress.fake_stages import statement

SCHEMA = json.loads(Path(edge.statement.statement.__file__).with_name("statement.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def whole() -> dict[str, Any]:
    """A statement with nothing left out."""
    stated = copy.deepcopy(statement())
    predicate = stated["predicate"]
    state = {
        "cpu": "a CPU",
        "isa": ["avx2"],
        "cores": {"visible": 4, "allowed": 2, "quota": 1.5},
        "governor": None,
        "mhz": 2100.0,
        "load": [0.1, 0.2, 0.3],
        "memory_available_bytes": 10**9,
        "kernel": "6.1",
        "python": "3.11.7",
        "runtimes": {"numpy": "2.0.0", "onnxruntime": None},
    }
    predicate["machine"] = {"before": state, "after": {**state, "cpu": None, "isa": None, "load": None}}
    predicate["attacks"] = [
        {
            "name": "pgd",
            "kind": "white-box",
            "source": "quantized",
            "parameters": {"steps": 20},
            "where": "here",
            "n": 200,
            "broken": 3,
            "robust_accuracy": 0.9,
            "alone": 0,
        }
    ]
    predicate["alarms"] = [
        {"name": "masking", "fired": True, "count": 4, "threshold": 3, "interval": [0.0, 0.1], "meaning": "masked"}
    ]
    predicate["lineage"] = [{"stage": "exported", "identity": "c" * 64}]
    return stated


def change(path: str, value: Any) -> dict[str, Any]:
    """A whole statement with one place of its predicate set, or deleted where `value` is `del`."""
    stated = whole()
    place: Any = stated["predicate"]
    *above, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    for key in above:
        place = place[key]
    if value == "del":
        del place[last]
    else:
        place[last] = value
    return stated


def test_the_schema_is_one_and_takes_a_whole_statement() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$id"] and SCHEMA["$schema"].endswith("2020-12/schema")
    VALIDATOR.validate(whole())


def _objects(schema: Any) -> "list[dict[str, Any]]":
    found = [schema] if isinstance(schema, dict) and "properties" in schema and "type" in schema else []
    parts = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
    return found + [one for part in parts for one in _objects(part)]


def test_no_object_takes_keys_that_are_not_described() -> None:
    assert len(_objects(SCHEMA)) > 15
    assert all(one["additionalProperties"] is False for one in _objects(SCHEMA))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("nature", "certified"),
        ("version", 1),
        ("artifact.sha256", "abc"),
        ("artifact.executed", "yes"),
        ("artifact.more", 1),
        ("threat.norm", "l2"),
        ("threat.eps", "about 8"),
        ("data.n", 0),
        ("figures.clean", None),
        ("figures.clean.value", 1.5),
        ("figures.clean.interval", [0.1]),
        ("figures.robust", None),
        ("figures.upper_bound", {"value": 0.5, "count": 1, "n": 2, "interval": [0, 1], "level": 0.95}),
        ("protocol.2.covered", False),
        ("protocol.2.part", "d"),
        ("protocol.5", "del"),
        ("attacks.0.kind", "magic"),
        ("attacks.0.broken", "del"),
        ("differential.n", 0.5),
        ("agreement.clean", None),
        ("agreement.adversarial.argmax_agreement", "del"),
        ("alarms.0.interval", 3),
        ("latency.p50_ms", -1),
        ("latency.p95_ms", "del"),
        ("machine.before.isa", "avx2"),
        ("machine.after", "del"),
        ("runtime.threads", 0),
        ("lineage", []),
        ("attack_set.files", {}),
        ("attack_set", "del"),
        ("verdicts.sha256", "0"),
        ("figures.inconclusive", "del"),
        ("float_figures", []),
        ("versions", None),
    ],
)
def test_the_schema_refuses(path: str, value: Any) -> None:
    assert not VALIDATOR.is_valid(change(path, value))


@pytest.mark.parametrize(
    ("path", "value"), [("agreement", None), ("latency.p999_ms", 3.0), ("agreement.adversarial.max_abs", "del")]
)
def test_the_schema_allows(path: str, value: Any) -> None:
    VALIDATOR.validate(change(path, value))


def test_an_upper_bound_is_for_a_protocol_with_gaps() -> None:
    bound = change("protocol.2.covered", False)
    figures = bound["predicate"]["figures"]
    figures["upper_bound"], figures["robust"] = figures["robust"], None
    VALIDATOR.validate(bound)


def everything() -> dict[str, Any]:
    """A statement with all that may be absent, too."""
    stated = whole()
    added = {
        "float_figures": {"student": {"clean": figure(180, 200), "robust": 0.25}},
        "preprocess": {
            "name": "camera:half",
            "sha256": None,
            "frames": "made by camera:frames",
            "clean": figure(170, 200),
            "same_prediction": 0.9,
            "largest_change": 1.5,
        },
        "golden": None,
        "warnings": [{"name": "unsteady", "found": "5 %", "fix": "wait"}],
    }
    order = [each.name for each in dataclasses.fields(Predicate)]
    inner = {**stated["predicate"], **added}
    names = ["version", "nature", *(name for name in order if name in inner)]
    return {**stated, "predicate": {name: inner[name] for name in names}}


@pytest.mark.parametrize("stated", [whole(), everything()])
def test_classes_hold_the_whole_of_the_json_in_its_order(stated: dict[str, Any]) -> None:
    VALIDATOR.validate(stated)
    again = Statement.of(stated).as_json()
    if "golden" not in stated["predicate"]:
        assert again["predicate"].pop("golden") is None  # stated always, null where the set does not hold it
    assert again == stated
    if stated == everything():
        assert list(again["predicate"]) == list(stated["predicate"])


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("figures.clean", "predicate.figures lacks clean"),
        ("attacks.0.n", "predicate.attacks.0 lacks n"),
        ("artifact.sha256", "predicate.artifact lacks sha256"),
    ],
)
def test_what_a_class_needs_and_the_json_lacks_is_one_line(path: str, fault: str) -> None:
    with pytest.raises(CompressError, match=f"^somewhere: {fault}; verify the artifact again$"):
        Statement.of(change(path, "del"), "somewhere")
    broken = whole()
    broken["predicate"]["figures"] = 3
    with pytest.raises(CompressError, match=r"predicate\.figures is no object"):
        Statement.of(broken)


def test_a_figure_is_a_share_with_its_interval() -> None:
    found = figure(281, 360)
    assert (found["value"], found["count"], found["n"], found["level"]) == (281 / 360, 281, 360, 0.95)
    assert found["interval"] == pytest.approx([stats.beta.ppf(0.025, 281, 80), stats.beta.ppf(0.975, 282, 79)])


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "statement.json"
    path.write_text(json.dumps(whole()))
    assert read_statement(path) == Statement.of(whole())


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: "{", "not readable as a statement"),
        (lambda s: "[]", "no in-toto statement"),
        (lambda s: json.dumps({**s, "_type": "x"}), "no in-toto statement"),
        (lambda s: json.dumps({**s, "predicateType": "urn:other:1"}), "states urn:other:1, not robustness"),
        (
            lambda s: json.dumps({**s, "predicateType": s["predicateType"][:-1] + "3"}),
            "version 3, this program reads 2; use the version of robust-compress",
        ),
        (lambda s: json.dumps({**s, "predicate": {**s["predicate"], "version": 3}}), "version 3, this program reads"),
        (lambda s: json.dumps({**s, "predicate": {**s["predicate"], "version": 1}}), "version 1, this program reads"),
        (lambda s: json.dumps({**s, "predicate": {"version": 2}}), "lacks artifact, threat.* verdicts"),
        (lambda s: json.dumps({**s, "predicate": []}), "lacks"),
        (lambda s: json.dumps({key: value for key, value in s.items() if key != "predicate"}), "lacks"),
    ],
)
def test_what_is_refused(tmp_path: Path, spoil: Callable[[dict[str, Any]], str], message: str) -> None:
    path = tmp_path / "statement.json"
    path.write_text(spoil(whole()))
    with pytest.raises(CompressError, match=message) as fault:
        read_statement(path)
    assert "\n" not in str(fault.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CompressError, match="not readable as a statement"):
        read_statement(tmp_path / "statement.json")


def test_the_text_tells_the_figures_and_the_alarms() -> None:
    shown = statement_text(Statement.of(whole()))
    for part in ("96,300 bytes", "linf, eps 40/255", "50.0%", "100 of 200", "45.0% to 55.0%", "over 1 attack"):
        assert part in shown
    assert "100.0% of clean, 100.0% of adversarial predictions equal the twin's" in shown
    assert "p50 1.250 ms" in shown and "ALARM       masking: masked" in shown and "No certificate" in shown
    quiet = whole()
    quiet["predicate"]["alarms"][0]["fired"] = False
    assert "ALARM" not in statement_text(Statement.of(quiet))


def test_the_text_of_an_upper_bound_names_what_is_missing() -> None:
    stated = change("protocol.2.covered", False)
    figures = stated["predicate"]["figures"]
    figures["upper_bound"], figures["robust"] = figures["robust"], None
    stated["predicate"]["agreement"] = None
    assert "at most 50.0%" in statement_text(Statement.of(stated)) and "not covered: c" in statement_text(
        Statement.of(stated)
    )
    assert "not measured: the attack set does not hold the artifact's twin" in statement_text(Statement.of(stated))


def test_the_details_hold_everything_that_the_statement_names() -> None:
    stated = whole()
    stated["predicate"]["float_figures"] = {"student": {"clean": figure(180, 200), "robust": 0.25}}
    VALIDATOR.validate(stated)
    shown = statement_details(Statement.of(stated))
    assert statement_text(Statement.of(stated)) in shown
    for part in ("pgd", "steps 20", "(f) covered", "FIRED  masking", "student: clean 90.0%, robust 25.0%", "seed 0"):
        assert part in shown
    for sha256 in ("a" * 64, "0" * 64, "e" * 64, "c" * 64):
        assert sha256 in shown
