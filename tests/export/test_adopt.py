"""Files of other tools as exported stages: the very bytes, what is found out about them, whom the dataset refuses."""

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import export.stage
from compress import data
from compress.cli.execute import execute
from compress.config import ExportConfig, parse
from edge import open_runner
from edge.core import artifact
from edge.core.artifact import Stage
from edge.core.errors import CompressError
from tests.compress import graphs

CONFIG = parse(ExportConfig, {"data": "digits"}, "test")


def saved(folder: Path, content: bytes, name: str = "foreign.onnx") -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def adopted(folder: Path, content: bytes, out: str = "e") -> Stage:
    return export.stage.run(CONFIG, export.stage.ExportInputs(model=saved(folder, content)), folder / out)


@pytest.mark.parametrize(("key", "value"), [("opset", 19), ("batch", {"max": 8}), ("precision", "fp16")])
def test_what_adoption_does_not_change_is_not_asked_for(tmp_path: Path, key: str, value: Any) -> None:
    config = parse(ExportConfig, {"data": "digits", "target": "onnx", key: value}, "test")
    with pytest.raises(CompressError, match=rf"leave --{key} .*out$"):
        export.stage.run(config, export.stage.ExportInputs(model=saved(tmp_path, b"")), tmp_path / "e")


def test_the_very_bytes_with_what_was_measured(tmp_path: Path) -> None:
    content = graphs.linear_digits()
    stage = adopted(tmp_path, content)
    assert stage.file("model.onnx").read_bytes() == content
    assert stage.manifest["payload"]["model.onnx"]["sha256"] == artifact.bytes_sha256(content)
    assert stage.config["adopted"] == artifact.bytes_sha256(content) and stage.metrics["adopted"] == "foreign.onnx"
    assert stage.manifest["plan"]["inputs"] == {} and stage.config["target"] == "onnx"
    images, labels = data.load_dataset("digits").part("test")
    with open_runner(stage.path) as runner:
        right = int((runner.infer(images).argmax(1) == labels).sum())
    found = stage.metrics["clean"]
    assert (found["count"], found["n"]) == (right, len(labels)) and right / len(labels) > 0.7
    assert found["interval"][0] < found["value"] < found["interval"][1]
    assert stage.metrics["parameters"] == 64 * 10 + 10 + 1 and stage.metrics["precision"] == "float32"
    assert not stage.metrics["probabilities"] and stage.metrics["fixed_batch"] is None


def test_the_bytes_decide_the_identity_and_nothing_else_of_the_file(tmp_path: Path) -> None:
    content = graphs.linear_digits()
    one = adopted(tmp_path, content)
    renamed = saved(tmp_path, content, "other.onnx")
    assert export.stage.plan(CONFIG, export.stage.ExportInputs(model=renamed)).as_dict() == one.manifest["plan"]
    assert export.stage.run(CONFIG, export.stage.ExportInputs(model=renamed), tmp_path / "f").identity == one.identity
    assert export.stage.run(CONFIG, export.stage.ExportInputs(model=renamed), tmp_path / "e").path == one.path, (
        "complete already"
    )
    with pytest.raises(CompressError, match=r"holds a stage made otherwise \(config\.adopted"):
        export.stage.run(
            CONFIG, export.stage.ExportInputs(model=saved(tmp_path, graphs.linear_digits(scale=2))), tmp_path / "e"
        )


def test_the_command_line_takes_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(tmp_path, graphs.linear_digits())
    line = f"export {path} --target onnx --data digits --out {tmp_path / 'e'}"
    assert execute(shlex.split(line)) == 0
    assert artifact.read(tmp_path / "e").kind == "exported" and "adopted" in capsys.readouterr().out
    assert execute(shlex.split(f"export {path} --out {tmp_path / 'f'}")) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert execute(shlex.split(f"export {tmp_path / 'gone.onnx'} --data digits --out {tmp_path / 'f'}")) == 2
    assert "gone.onnx: cannot be read" in capsys.readouterr().err


def test_what_is_worth_a_word_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage = adopted(tmp_path, graphs.linear_digits(scale=30, softmax=True), "softmax")
    assert (
        stage.metrics["probabilities"]
        and "its outputs are probabilities; attacks with gradients ascend on the values before its softmax (m)"
        in capsys.readouterr().err
    )
    hidden = onnx.load_model_from_string(graphs.linear_digits(scale=30, softmax=True))  # behind a matrix
    hidden.graph.node[-1].output[0] = "p"
    hidden.graph.node.append(helper.make_node("Gemm", ["p", "one"], ["y"]))
    hidden.graph.initializer.append(numpy_helper.from_array(np.eye(10, dtype=np.float32), "one"))
    assert adopted(tmp_path, hidden.SerializeToString(), "hidden").metrics["output"] == "probabilities"
    capsys.readouterr()
    ranged = onnx.load_model_from_string(graphs.linear_digits())
    ranged.graph.node[-1].output[0] = "z2"
    ranged.graph.node.append(helper.make_node("DynamicQuantizeLinear", ["z2"], ["q", "step", "zero"]))
    ranged.graph.node.append(helper.make_node("DequantizeLinear", ["q", "step", "zero"], ["y"]))
    adopted(tmp_path, ranged.SerializeToString(), "ranged")
    assert "1 of its quantizers take their range from the whole call" in capsys.readouterr().err
    fixed = adopted(tmp_path, graphs.linear_digits(7), "fixed")
    plain = adopted(tmp_path, graphs.linear_digits(), "plain")
    assert fixed.metrics["fixed_batch"] == 7 and fixed.metrics["clean"] == plain.metrics["clean"]
    assert capsys.readouterr().err == ""
    adopted(tmp_path, graphs.linear_digits(scale=-1), "upside-down")
    assert "no better than chance; it may expect other pixels than [0, 1]" in capsys.readouterr().err


def with_input(shape: "list[Any]", *more: str) -> bytes:
    proto = onnx.load_model_from_string(graphs.linear_digits())
    first = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    proto.graph.input[0].CopyFrom(first)
    proto.graph.input.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in more)
    return proto.SerializeToString()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            with_input(["N", 1, 8, 8], "second"),
            r"has 2 inputs: x float \(N, 1, 8, 8\), second float \(1\); a classifier has one",
        ),
        (with_input(["N", 3, "H", "W"]), r"takes images \(3, H, W\), digits has \(1, 8, 8\)"),
        (with_input(["N", 4, 4, 4]), r"takes images \(4, 4, 4\), digits has \(1, 8, 8\); give the --data it is for"),
        (graphs.linear_digits(classes=7), "tells 7 classes apart, digits has 10; give the --data it is for"),
        (b"no graph", r"is no ONNX file, or not the whole of one \(8 bytes\)"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(CompressError, match=message) as fault:
        adopted(tmp_path, content)
    assert "\n" not in str(fault.value) and "foreign.onnx" in str(fault.value)
    assert not (tmp_path / "e").exists() and not (tmp_path / "e.partial").exists()
