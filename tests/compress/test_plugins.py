"""Methods, networks and datasets of installed packages: names as ours are; what is wrong with one is one line."""

import json
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from compress import config, data, names, networks
from compress.cli.execute import execute
from compress.config import starter
from compress.methods import registry
from compress.networks import network_files
from edge.core import artifact, plugins, targets
from edge.core.errors import CompressError

HERE = "tests.compress.plugin_objects"
GOOD = {
    "methods": {"input-gradients": f"{HERE}:METHOD"},
    "networks": {"pooled-linear": f"{HERE}:NETWORK"},
    "datasets": {"stripes": f"{HERE}:SOURCE"},
}


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """install({group: {name: "module:object"}}): as if packages with these entry points were installed."""

    def installed(points: dict[str, dict[str, str]]) -> None:
        def entry_points(group: str) -> list[EntryPoint]:
            named = points.get(group.removeprefix("robust_compress."), {})
            return [EntryPoint(name, value, group) for name, value in named.items()]

        monkeypatch.setattr(plugins, "entry_points", entry_points)
        plugins.installed.cache_clear()

    yield installed
    monkeypatch.undo()
    plugins.installed.cache_clear()
    data.load_dataset.cache_clear()


def test_they_stand_behind_ours(install: Any) -> None:
    before = [names.method_names(), networks.model_names(), data.source_names(), registry.teacher_methods()]
    install(GOOD)
    after = [names.method_names(), networks.model_names(), data.source_names(), registry.teacher_methods()]
    added = ["input-gradients", "pooled-linear", "stripes", "input-gradients"]
    assert after == [(*own, name) for own, name in zip(before, added, strict=True)]
    assert registry.hosts()[-1] == "input-gradients" and "input-gradients" not in registry.additions()
    assert not registry.needs_teacher("input-gradients", {})


def test_a_network_that_takes_the_images_size_is_given_it(install: Any) -> None:
    install({"networks": {"pooled-linear": f"{HERE}:NETWORK", "placed-linear": f"{HERE}:PLACED"}})
    described = network_files.describe_network("placed-linear", (2, 6, 10), ("a", "b"))
    assert network_files.build_described(described).get_parameter("places").shape == (2, 6, 10)
    assert networks.build_network("placed-linear", channels=1, classes=2).get_parameter("places").shape == (1, 8, 8)
    network_files.build_described({**described, "model": "pooled-linear"})  # takes none


def test_a_configuration_takes_them_and_checks_their_options(install: Any) -> None:
    install(GOOD)
    student = {"method": "input-gradients", "model": "pooled-linear+normalize", "options": {"penalty": 2}}
    run = config.parse(config.Run, {"data": "stripes:90", "student": student}, "a.yaml")
    assert run.threat.eps == "16/255" and run.student.options == {"penalty": 2.0}
    student["options"] = {"penalti": 2}
    with pytest.raises(CompressError, match=r"student\.options\.penalti: unknown key; did you mean 'penalty'\?"):
        config.parse(config.Run, {"data": "stripes", "student": student}, "a.yaml")
    combined = {"method": ["input-gradients", "igdm"]}
    assert config.parse(config.Run, {"data": "stripes", "student": combined}, "b").student.options == {
        "input-gradients": {"penalty": 1.0},
        "igdm": {"host": "input-gradients", "alpha": 1.0},
    }
    text = json.dumps(starter.json_schema())
    assert all(name in text for name in ("input-gradients", "pooled-linear", "stripes"))


def test_without_them_their_names_are_unknown() -> None:
    for wrong in ({"data": "stripes"}, {"data": "digits", "student": {"method": "input-gradients"}}):
        with pytest.raises(CompressError, match=r"unknown (data|method)"):
            config.parse(config.Run, wrong, "a.yaml")


def test_a_student_is_trained_by_all_three(
    install: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    install(GOOD)
    for verb in ("distill", "teacher"):  # a process imports a verb once, after packages are installed
        monkeypatch.delitem(sys.modules, f"compress.cli.{verb}", raising=False)
    short = ["--epochs", "3", "--set", "attack.steps=2", "--set", "validate_steps=2", "--set", "test_steps=2"]
    args = ["distill", "--data", "stripes:240", "--student", "pooled-linear", "--method", "input-gradients", *short]
    assert execute([*args, "--set", "batch_size=32", "--set", "lr=0.5", "--out", str(tmp_path / "s")]) == 0
    stage = artifact.read(tmp_path / "s")
    assert stage.config["options"] == {"penalty": 1.0}
    rows = [json.loads(line) for line in (tmp_path / "s" / "metrics.jsonl").read_text().splitlines()]
    slopes = [row[key] for row in rows for key in row if key.endswith("slope")]
    assert len(slopes) == 3 and all(slope > 0 for slope in slopes)
    assert stage.metrics["test"]["clean"] > 0.9
    quantized = ["quantize", str(tmp_path / "s"), "--data", "stripes:240", "--out", str(tmp_path / "q")]
    assert execute([*quantized, "--epochs", "1", "--set", "attack.steps=2", "--set", "calibration_images=64"]) == 0
    assert artifact.read(tmp_path / "q").metrics["test"]["clean"] > 0.9  # fine-tuned by the same method
    capsys.readouterr()
    assert execute(["teacher", "train", "--help"]) == 0 and "input-gradients" in capsys.readouterr().out
    assert execute(["distill", "--help"]) == 0
    text = capsys.readouterr().out
    assert "input-gradients" in text and "stripes" in text


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("tests.compress.nowhere:SOURCE", r"cannot be imported \(ModuleNotFoundError"),
        (f"{HERE}:NOTHING", r"cannot be imported \(AttributeError"),
        (f"{HERE}:WRONG", r"is a dict, not a compress\.data\.DatasetSource"),
        (f"{HERE}:MISNAMED", r"names itself 'another'"),
    ],
)
def test_a_broken_one_is_one_line(
    install: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], value: str, fault: str
) -> None:
    install({"datasets": {"stripes": value}})
    with pytest.raises(CompressError, match=fault):
        data.find_source("stripes")
    assert execute(["distill", "--data", "stripes", "--student", "cnn", "--out", str(tmp_path / "s")]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) <= 4  # click's usage above the line itself
    install({"methods": {"mine": value}, "networks": {"mine": value}, "targets": {"mine": value}})
    capsys.readouterr()
    assert "rslad" in registry.hosts() and targets.every() == targets.OURS
    assert networks.checked_model("resnet8") in networks.model_names()
    left_out = capsys.readouterr().err.splitlines()
    groups = ("methods", "targets", "networks")
    assert [line.partition(" 'mine'")[0] for line in left_out] == [f"left out: {group}" for group in groups]
    for ask in (
        lambda: registry.checked_method("mine"),
        lambda: networks.checked_model("mine"),
        lambda: targets.get("mine"),
    ):
        with pytest.raises(CompressError, match=r"^(methods|networks|targets) 'mine': "):
            ask()


def test_one_with_a_name_of_ours_is_refused(install: Any) -> None:
    install({"datasets": {"digits": f"{HERE}:SOURCE"}, "methods": {"rslad": f"{HERE}:METHOD"}})
    with pytest.raises(CompressError, match=r"datasets 'digits': .* has the name of one of ours"):
        data.source_names()
    with pytest.raises(CompressError, match=r"methods 'rslad': .* has the name of one of ours"):
        names.method_names()
