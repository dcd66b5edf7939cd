"""The configuration: every fault at once with its nearest key, defaults that explain themselves, overrides."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from compress import config, names
from compress.config.values import model_in
from compress.data import find_source, source_names
from compress.methods import registry
from edge.core.errors import CompressError


def fault(content: dict[str, Any], kind: type[BaseModel] = config.Run) -> list[str]:
    with pytest.raises(CompressError) as caught:
        config.parse(kind, content, "x.yaml")
    return str(caught.value).splitlines()


def test_five_faults_are_reported_at_once_each_with_what_to_do():
    head, *lines = fault(
        {
            "data": "digits",
            "sed": 1,
            "teacher": {"method": "pgdat", "epoch": 3},
            "student": {"options": {"lambda_cv": 1}},
            "verify": {"latency": {"samples": 0}},
        }
    )
    assert head == "x.yaml: 5 faults"
    expected = {
        "sed: unknown key; did you mean 'seed'?",
        "teacher.method: unknown method 'pgdat'; did you mean 'pgd-at'? (known: normal, pgd-at, trades, mart, n-fgsm)",
        "teacher.epoch: unknown key; did you mean 'epochs'?",
        "student.options.lambda_cv: unknown key; did you mean 'lambda_cov'?",
        "verify.latency.samples: input should be greater than or equal to 1, got 0",
    }
    for text in expected:
        assert sum(line.strip().startswith(text) for line in lines) == 1, (text, lines)
    assert len(lines) == 5


def test_one_fault_is_one_line():
    known = ", ".join(source_names())
    assert fault({"data": "digit"}) == [f"x.yaml: data: unknown data 'digit'; did you mean 'digits'? (known: {known})"]
    assert fault({}) == ["x.yaml: data: missing; it has no default"]


def test_faults_inside_baselines_name_the_baseline():
    lines = fault({"data": "digits", "baselines": {"mine": {"epoch": 1}, "Not a name": {}}})
    assert any(line.strip().startswith("baselines.mine.epoch: unknown key; did you mean 'epochs'?") for line in lines)
    assert any("Not a name" in line for line in lines)


def models(kind: type[BaseModel], seen: "set[type[BaseModel]] | None" = None) -> "set[type[BaseModel]]":
    seen = set() if seen is None else seen
    seen.add(kind)
    for field in kind.model_fields.values():
        inner = model_in(field.annotation)
        if inner is not None and inner not in seen:
            models(inner, seen)
    return seen


@pytest.mark.parametrize(
    "kind",
    [
        *sorted(models(config.Run), key=lambda kind: kind.__name__),
        config.ExportConfig,
        config.VerifyConfig,
        *map(registry.options_of, names.METHODS),
    ],
)
def test_every_key_is_documented(kind: type[BaseModel]):
    assert kind.__doc__
    undocumented = [name for name, field in kind.model_fields.items() if not field.description]
    assert not undocumented


@pytest.mark.parametrize(
    ("written", "kept", "radius"),
    [("8/255", "8/255", 8 / 255), (" 40 / 255 ", "40/255", 40 / 255), (0.03, "0.03", 0.03), ("1e-2", "1e-2", 0.01)],
)
def test_eps_is_kept_as_people_write_it(written: Any, kept: str, radius: float):
    threat = config.parse(config.Run, {"data": "digits", "threat": {"eps": written}}, "x").threat
    assert threat.eps == kept
    assert threat.radius == pytest.approx(radius, rel=1e-15)


@pytest.mark.parametrize("written", ["8", 8, 0, "-1/255", "255/255", "1/0", "a", "nan", "inf", None, True, [1]])
def test_eps_outside_the_unit_interval_is_refused(written: Any):
    (line,) = fault({"data": "digits", "threat": {"eps": written}})
    assert line.startswith("x.yaml: threat.eps: ")
    assert "8/255" in line


def test_a_dataset_brings_its_radius_unless_one_is_given():
    assert config.parse(config.Run, {"data": "digits"}, "x").threat.eps == find_source("digits").eps == "40/255"
    given = {"data": "digits", "threat": {"eps": "1/255"}}
    assert config.parse(config.Run, given, "x").threat.eps == "1/255"


def test_options_are_those_of_the_method_in_full():
    run = config.parse(config.Run, {"data": "digits", "student": {"options": {"lambda_gap": 0.5}}}, "x")
    assert run.student.options["lambda_gap"] == 0.5
    assert run.student.options["host"] == "rslad"
    assert run.teacher.options == {"clean_weight": 0.0, "label_smoothing": 0.0}
    (line,) = fault({"data": "digits", "student": {"method": "normal", "options": {"lambda_gap": 0.5}}})
    assert line.startswith("x.yaml: student.options.lambda_gap: unknown key")


def test_overrides_reach_into_sections_and_leave_their_source_alone(tmp_path: Path):
    file = tmp_path / "a.yaml"
    file.write_text("data: digits\nseed: 3\nteacher: {epochs: 7}\n")
    run = config.load_run(file, {"teacher.attack.steps": 4, "student.epochs": 9, "seed": 5, "quantize": None})
    assert (run.teacher.epochs, run.teacher.attack.steps, run.student.epochs, run.seed) == (7, 4, 9, 5)
    assert run.quantize is None
    content = {"teacher": {"epochs": 7}}
    config.merged(content, {"teacher.epochs": 8})
    assert content == {"teacher": {"epochs": 7}}


def test_a_stage_config_is_the_shared_part_and_its_section():
    content = {"data": "digits", "seed": 4, "threat": {"eps": "1/255"}, "verify": {"threads": 2}}
    run = config.parse(config.Run, content, "x")
    stage = run.stage(config.VerifyConfig, run.verify, device="cpu")
    assert (stage.seed, stage.threat.eps, stage.threads, stage.device) == (4, "1/255", 2, "cpu")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("data: digits\nteacher: {epochs: 1\nseed: 2\n", "line 3 is not YAML"),
        ("data: digits\nseed: 1\nseed: 2\n", "line 3 is not YAML (key 'seed' is given twice)"),
        ("data: digits\nteacher:\n  epochs: 1\n  epochs: 1\n", "line 4 is not YAML (key 'epochs' is given twice)"),
        ("- data\n", "holds a list"),
        ("a: b: c\n", "line 1 is not YAML"),
    ],
)
def test_what_is_no_config_is_told_with_its_line(tmp_path: Path, text: str, said: str):
    file = tmp_path / "broken.yaml"
    file.write_text(text)
    with pytest.raises(CompressError) as caught:
        config.load_run(file)
    assert str(caught.value).startswith(str(file))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_yaml_anchors_still_merge(tmp_path: Path):
    file = tmp_path / "anchors.yaml"
    file.write_text("data: digits\nteacher: &t {epochs: 2, model: resnet8}\nstudent: {<<: *t, epochs: 3}\n")
    run = config.load_run(file)
    assert (run.student.epochs, run.student.model, run.teacher.epochs) == (3, "resnet8", 2)


def test_a_built_in_config_is_found_by_name_and_a_missing_one_lists_them(tmp_path: Path, monkeypatch: Any):
    monkeypatch.chdir(tmp_path)
    assert config.load_run("quickstart") == config.load_run("configs/quickstart.yaml")
    with pytest.raises(CompressError, match=r"quikstart: no such config.*quickstart"):
        config.load_run("quikstart")
