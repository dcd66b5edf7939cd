"""A target that an installed package adds is one object, and goes everywhere ours go."""

import json
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

import export.stage
from compress import folders
from compress.config import ExportConfig, QuantizeConfig, parse
from compress.data import load_dataset
from edge import open_runner
from edge.core import plugins, targets
from edge.core.artifact import Stage
from edge.core.errors import CompressError
from edge.doctor import diagnose, examine
from export import candidates
from export.inspection import inspect_artifact
from tests.export import madeup, untrained


def point(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, value, "robust_compress.targets")


@pytest.fixture(autouse=True)
def added(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[EntryPoint]]:
    """The entry points of a package that is installed while a test runs."""
    points = [point("madeup", "tests.export.madeup:TARGET"), point("plain", "tests.export.madeup:PLAIN")]
    monkeypatch.setattr(plugins, "entry_points", lambda group: points if group.endswith(".targets") else [])
    plugins.installed.cache_clear()
    yield points
    plugins.installed.cache_clear()


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return untrained.student(tmp_path_factory.mktemp("s") / "student")


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory, student: Stage) -> Stage:
    return untrained.quantized(tmp_path_factory.mktemp("q") / "quantized", student)


def exported(source: Stage, out: Path, **config: Any) -> Stage:
    settled = parse(ExportConfig, {"data": "digits", "parity_images": 16, **config}, "test")
    return export.stage.run(settled, export.stage.ExportInputs(model=source.path), out)


def test_it_is_named_beside_ours() -> None:
    assert targets.names()[-2:] == ("madeup", "plain")
    assert "madeup" in targets.dialects() and "madeup" in targets.executed_by("cpu")
    assert madeup.TARGET in targets.on_board() and madeup.PLAIN not in targets.on_board()
    assert parse(QuantizeConfig, {"data": "digits", "runtime": "madeup"}, "test").runtime == "madeup"
    assert [row.name for row in candidates.tried()][-3:] == ["madeup-float32", "madeup-int8", "plain-float32"]


def test_int8_in_its_own_dialect_says_its_own_runtime_and_is_opened_by_its_own_runner(
    quantized: Stage, tmp_path: Path
) -> None:
    stage = exported(quantized, tmp_path / "e", target="madeup")
    contract = json.loads(stage.file("contract.json").read_text())
    assert (contract["target"], contract["runtime"], contract["precision"]) == ("madeup", "reference", "int8")
    assert contract["model"]["file"] == "model.onnx" and contract["input"]["batch"]["max"] is None

    graph = onnx.load(stage.file("model.onnx")).graph
    stored = {entry.name: numpy_helper.to_array(entry) for entry in graph.initializer}
    points = {stored[node.input[2]].dtype for node in graph.node if node.op_type == "QuantizeLinear"}
    assert points == {np.dtype(np.int8)}, "signed everywhere, as neither of our dialects with integer biases is"
    assert TensorProto.INT32 in {entry.data_type for entry in graph.initializer}

    images = load_dataset("digits").part("test")[0][:16]
    twin = folders.load(quantized, runtime="madeup")
    with open_runner(stage.path, batch_size=8) as runner:
        assert runner.describe()["name"] == "reference"
        got = runner.infer(images)
    want = twin(untrained.images(16, "test")).numpy()
    assert (got.argmax(1) == want.argmax(1)).all() and np.abs(got - want).max() < 0.1 * np.abs(want).max()

    seen = inspect_artifact(stage.path)
    assert seen["target"] == "madeup" and {row["execution"] for row in seen["graph"]["layers"]} == {None}


def test_the_doctor_judges_it() -> None:
    known = targets.every()
    assert diagnose(examine(), known).targets["madeup"]["run"].can == "yes"


def test_without_a_dialect_int8_is_refused_in_one_line(student: Stage, quantized: Stage, tmp_path: Path) -> None:
    for precision in ("auto", "int8"):
        with pytest.raises(CompressError, match=r"the target plain has no INT8; export .*student") as fault:
            exported(quantized, tmp_path / "e", target="plain", precision=precision)
        assert fault.value.exit_code == 2 and "\n" not in str(fault.value)
    assert not (tmp_path / "e").exists()
    assert exported(student, tmp_path / "f", target="plain").metrics["precision"] == "float32"
    with pytest.raises(CompressError, match=r"the target madeup has no fp16; give --precision float32$"):
        exported(student, tmp_path / "e", target="madeup", precision="fp16")


@pytest.mark.parametrize(
    ("role", "name", "says"),
    [
        ("emitter", "tests.export.madeup.writing:nothing", "its emitter .* cannot be had here"),
        ("emitter", "tests.export.nowhere:emit", "its emitter .* cannot be had here"),
        ("emitter", "tests.export.madeup.running:open_stage", "its emitter .* cannot be called as one"),
        ("opener", "tests.export.madeup.writing:emit", "its opener .* cannot be called as one"),
        ("opener", "tests.export.madeup.running:", "its opener .* cannot be had here"),
    ],
)
def test_what_it_names_and_does_not_have_is_one_line(
    role: str, name: str, says: str, student: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = exported(student, tmp_path / "e", target="madeup")
    monkeypatch.setattr(madeup, "TARGET", replace(madeup.TARGET, **{role: name}))
    with pytest.raises(CompressError, match=f"^target 'madeup': {says}") as fault:
        exported(student, tmp_path / "again", target="madeup") if role == "emitter" else open_runner(stage.path)
    assert "\n" not in str(fault.value)


def test_a_runner_of_another_kind_and_a_grid_that_is_none_are_one_line(
    student: Stage, quantized: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = exported(student, tmp_path / "e", target="madeup")
    monkeypatch.setattr("tests.export.madeup.running.ReferenceRunner", lambda *args: "no runner")
    with pytest.raises(CompressError, match="gives a str, no edge Runner"):
        open_runner(stage.path)
    monkeypatch.setattr("tests.export.madeup.writing.GRID", "no grid")
    with pytest.raises(CompressError, match="its grid is a str"):
        folders.load(quantized, runtime="madeup")


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        (
            "onnx",
            "tests.export.madeup:TARGET",
            "tests.export.madeup:TARGET has the name of one of ours",
        ),
        ("other", "tests.export.madeup:TARGET", "targets 'other': .* names itself 'madeup'"),
        ("text", "tests.export.madeup:__doc__", "targets 'text': .* is a str, not a edge.core.targets.Target"),
        ("gone", "tests.export.gone:TARGET", "targets 'gone': .* cannot be imported"),
    ],
)
def test_an_entry_point_that_is_no_target_is_one_line(
    name: str, value: str, says: str, added: list[EntryPoint]
) -> None:
    added.append(point(name, value))
    plugins.installed.cache_clear()
    with pytest.raises(CompressError, match=says):
        targets.every() if name == "onnx" else targets.get(name)
    if name != "onnx":
        assert targets.every()[: len(targets.OURS)] == targets.OURS, "ours are there all the same"
