"""Files of other tools that take other images than float32 NCHW in [0, 1]: what is put in front, what is suspected."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import export.stage
from compress.config import ExportConfig, parse
from compress.data import load_dataset
from edge import open_runner
from edge.core import artifact
from edge.core.artifact import Stage
from edge.core.errors import CompressError
from export.targets.onnx.input_form import InputForm
from tests.export.foreign_digits import classifier, colored

MS = "0.4,0.5,0.6/0.2,0.25,0.3"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    return colored(tmp_path_factory.mktemp("data") / "digits.npz")


def adopt(folder: Path, dataset: str, proto: onnx.ModelProto, **options: str) -> Stage:
    (folder / "foreign.onnx").write_bytes(proto.SerializeToString())
    config = parse(ExportConfig, {"data": dataset, "adopt": options}, "test")
    return export.stage.run(config, export.stage.ExportInputs(folder / "foreign.onnx"), folder / "e", replace=True)


def answers(proto: onnx.ModelProto, pixels: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": pixels})[0])


def given(form: InputForm) -> "dict[str, str]":
    """The options that a user writes for a form."""
    words = form.options.split()
    return {name.removeprefix("--"): value for name, value in zip(words[::2], words[1::2], strict=True)}


FORMS = {
    "normalized": InputForm("cifar10"),
    "by numbers": InputForm(MS),
    "NHWC": InputForm(layout="nhwc"),
    "Keras": InputForm("half", layout="nhwc"),
    "bytes": InputForm(full_scale=255, kind="tensor(uint8)"),
    "TFLite": InputForm(full_scale=255, kind="tensor(uint8)", layout="nhwc"),
    "half": InputForm("half", kind="tensor(float16)"),
    "double": InputForm(kind="tensor(double)"),
    "OpenCV": InputForm("half", channels="bgr"),
    "Caffe": InputForm("imagenet", 255, "bgr", "nhwc"),
}


@pytest.mark.parametrize("name", FORMS)
def test_what_it_takes_becomes_part_of_the_graph(tmp_path: Path, dataset: str, name: str) -> None:
    form = FORMS[name]
    sizes = (8, 8, 3) if form.layout == "nhwc" else (3, 8, 8)
    proto = classifier(form, sizes=sizes)
    stage = adopt(tmp_path, dataset, proto, **given(form))
    images, labels = load_dataset(dataset).part("test")
    # by hand, in the type that the file takes
    x = images.astype(np.float32) / np.float32(255)
    constants = {"cifar10": "0.4914,0.4822,0.4465/0.2471,0.2435,0.2616", "half": "0.5,0.5,0.5/0.5,0.5,0.5"}
    constants |= {"none": "0,0,0/1,1,1", "imagenet": "0.485,0.456,0.406/0.229,0.224,0.225", MS: MS}
    mean, std = (np.array(part.split(","), np.float32) for part in constants[form.normalize].split("/"))
    x = ((x - mean[:, None, None]) / std[:, None, None]) * form.full_scale
    x = x[:, ::-1] if form.channels == "bgr" else x
    x = x.transpose(0, 2, 3, 1) if form.layout == "nhwc" else x
    kind = {"tensor(uint8)": np.uint8, "tensor(float16)": np.float16, "tensor(double)": np.float64}
    want = answers(
        proto, np.ascontiguousarray((np.rint(x) if "uint8" in form.kind else x).astype(kind.get(form.kind, np.float32)))
    )
    with open_runner(stage.path) as runner:
        assert runner.input_shape == (3, 8, 8)
        np.testing.assert_allclose(runner.infer(images), want, atol=2e-3 if "16" in form.kind else 2e-5)
    assert stage.metrics["clean"]["count"] == int((want.argmax(1) == labels).sum()) > 0.7 * len(labels)
    assert (
        stage.config["adopted"]
        == stage.metrics["original"]["sha256"]
        == artifact.file_sha256(tmp_path / "foreign.onnx")
    )
    assert stage.input_path("original") == tmp_path / "foreign.onnx"
    assert not stage.metrics["original"]["very bytes"] and stage.metrics["precision"] == "float32"
    assert not any("right with" in note or "black box" in note for note in stage.metrics["notes"])
    onnx.checker.check_model(onnx.load(stage.file("model.onnx")), full_check=True)


SUSPECTED = ["normalized", "Keras", "half", "OpenCV"]


@pytest.mark.parametrize("name", SUSPECTED)
def test_a_suspect_that_is_better_is_named_and_auto_takes_it(
    tmp_path: Path, dataset: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    form = FORMS[name]
    proto = classifier(form, sizes=(8, 8, 3) if form.layout == "nhwc" else (3, 8, 8))
    right = adopt(tmp_path, dataset, proto, **given(form))
    plain = adopt(tmp_path, dataset, proto)
    (line,) = (note for note in plain.metrics["notes"] if "right with" in note)
    assert f"right with {form.options}" in line and "McNemar p" in line and "or with --normalize auto" in line
    assert f"foreign.onnx: {line}" in capsys.readouterr().err
    assert plain.metrics["clean"]["count"] < right.metrics["clean"]["count"]
    automatic = adopt(tmp_path, dataset, proto, normalize="auto")
    assert automatic.metrics["input"] == form.options
    assert automatic.metrics["clean"] == right.metrics["clean"]
    assert automatic.identity != right.identity


def test_range_and_layout_that_sizes_leave_open_are_suspected(tmp_path: Path, dataset: str) -> None:
    caffe = classifier(InputForm(full_scale=255), sizes=(3, "H", "W"))
    # logits of pixels that are 255 times too dark: another order of magnitude, other classes
    plain = adopt(tmp_path, dataset, caffe)
    assert any("right with --range 255, " in note for note in plain.metrics["notes"])
    assert open_runner(plain.path).input_shape == (3, 8, 8)
    form = InputForm("half", layout="nhwc")
    for options in ({"normalize": "half"}, {"normalize": "auto"}, {"normalize": "half", "layout": "nhwc"}):
        stage = adopt(tmp_path, dataset, classifier(form, sizes=("H", "W", "C")), **options)
        assert stage.metrics["input"] == form.options and stage.metrics["clean"]["value"] > 0.8
        said = any("executes on images (H,W,C) alone" in note for note in stage.metrics["notes"])
        assert said == ("layout" not in options)


def test_what_has_too_few_wrong_is_not_suspected(tmp_path: Path, dataset: str) -> None:
    stage = adopt(tmp_path, dataset, classifier())
    assert stage.metrics["original"]["very bytes"] and stage.metrics["notes"] == []
    assert stage.file("model.onnx").read_bytes() == (tmp_path / "foreign.onnx").read_bytes()
    automatic = adopt(tmp_path, dataset, classifier(), normalize="auto")
    assert automatic.metrics["input"] == InputForm().options and automatic.metrics["original"]["very bytes"]
    (note,) = automatic.metrics["notes"]
    assert "none of the suspects has more right than chance allows" in note


@pytest.mark.parametrize(("opset", "ir_version"), [(7, 3), (9, 4), (13, 7), (24, 13)])
def test_old_and_new_versions_alike(tmp_path: Path, dataset: str, opset: int, ir_version: int) -> None:
    """Initializers that are inputs as well, before IR version 4."""
    for form in (InputForm("half", layout="nhwc"), InputForm(full_scale=255, kind="tensor(uint8)")):
        sizes = (8, 8, 3) if form.layout == "nhwc" else (3, 8, 8)
        proto = classifier(form, opset=opset, ir_version=ir_version, sizes=sizes)
        stage = adopt(tmp_path, dataset, proto, **given(form))
        assert stage.metrics["clean"]["value"] > 0.8
        graph = onnx.load(stage.file("model.onnx"))
        assert graph.ir_version == ir_version and graph.opset_import[0].version == opset


def test_one_of_several_outputs(tmp_path: Path, dataset: str) -> None:
    tail = [
        helper.make_node("Relu", ["z"], ["features"]),
        helper.make_node("Unsqueeze", ["z"], ["wide"], axes=[2, 3]),
        helper.make_node("Cast", ["z"], ["y"], to=TensorProto.FLOAT16),
    ]
    proto = classifier(opset=11, tail=tail, outputs=("features", "wide", "y"))
    proto.graph.output[1].CopyFrom(helper.make_tensor_value_info("wide", TensorProto.FLOAT, ["N", 10, 1, 1]))
    proto.graph.output[2].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT16, ["N", "K"]))
    listed = r"has 3 outputs: features float \(N, 10\), wide float \(N, 10, 1, 1\), y float16 \(N, "
    with pytest.raises(CompressError, match=listed + r".*; choose the logits by --output NAME"):
        adopt(tmp_path, dataset, proto)
    assert not (tmp_path / "e").exists() and not (tmp_path / "e.partial").exists()
    with pytest.raises(CompressError, match=r"--output z: no output of that name \(it has features"):
        adopt(tmp_path, dataset, proto, output="z")
    images = load_dataset(dataset).part("test")[0]
    single = adopt(tmp_path, dataset, classifier())
    want = open_runner(single.path).infer(images)
    for name, tolerance in (("wide", 1e-6), ("y", 2e-2), ("features", 1e9)):
        stage = adopt(tmp_path, dataset, proto, output=name)
        graph = onnx.load(stage.file("model.onnx")).graph
        assert len(graph.output) == 1 and not {"features", "wide", "y"} - {name} & {
            tensor for node in graph.node for tensor in node.output
        }
        with open_runner(stage.path) as runner:
            np.testing.assert_allclose(runner.infer(images), want, atol=tolerance)


def test_an_output_of_four_axes_whose_sizes_are_not_stated(tmp_path: Path, dataset: str) -> None:
    proto = classifier(opset=11, tail=[helper.make_node("Unsqueeze", ["z"], ["y"], axes=[2, 3])])
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, None))
    images = load_dataset(dataset).part("test")[0]
    want = open_runner(adopt(tmp_path, dataset, classifier()).path).infer(images)
    np.testing.assert_allclose(open_runner(adopt(tmp_path, dataset, proto).path).infer(images), want, atol=1e-6)


def test_names_that_are_taken_already(tmp_path: Path, dataset: str) -> None:
    """Those of tensors and nodes that are put in front and behind."""
    taken = ["image", "logits", "x/adopted0", "x/adopted0.0", "logits/adopted0", "z"]
    tail = [
        helper.make_node("Identity", [before], [after], name=name)
        for before, after, name in zip(taken[-1:] + taken[:-2], taken[:-1], ["x/Div", *"abcd"], strict=True)
    ]
    proto = classifier(
        InputForm("half"), tail=[*tail, helper.make_node("Cast", ["logits/adopted0"], ["y"], to=TensorProto.DOUBLE)]
    )
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.DOUBLE, ["N", 10]))
    images = load_dataset(dataset).part("test")[0]
    want = open_runner(adopt(tmp_path, dataset, classifier(InputForm("half")), normalize="half").path).infer(images)
    stage = adopt(tmp_path, dataset, proto, normalize="half")
    np.testing.assert_allclose(open_runner(stage.path).infer(images), want, atol=1e-6)


def test_logits_that_depend_on_the_call_are_told_of_by_alarms_alone(tmp_path: Path, dataset: str) -> None:
    tail = [
        helper.make_node("ReduceMean", ["z"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["z", "mean"], ["y"]),
    ]
    stage = adopt(tmp_path, dataset, classifier(InputForm("half"), tail=tail), normalize="half")
    assert any(check["fired"] for check in stage.metrics["checks"])


def test_nodes_that_stand_in_no_order_of_execution(tmp_path: Path, dataset: str) -> None:
    """ONNX Runtime takes them, so the twin does, and so does the choice of an output."""
    tail = [helper.make_node("Neg", ["z"], ["other"]), helper.make_node("Neg", ["other"], ["y"])]
    proto = classifier(tail=tail, outputs=("y", "other"))
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in reversed(proto.graph.node)]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    stage = adopt(tmp_path, dataset, proto, output="y")
    images = load_dataset(dataset).part("test")[0]
    want = answers(classifier(), images.astype(np.float32) / 255)
    np.testing.assert_allclose(open_runner(stage.path).infer(images), want, atol=1e-5)
    assert not any("twin" in note for note in stage.metrics["notes"])


def test_a_batch_that_is_any_number_in_name_alone_is_fixed_at_one(tmp_path: Path, dataset: str) -> None:
    proto = classifier(tail=[helper.make_node("Reshape", ["z", "shape"], ["y"])])
    proto.graph.initializer.append(numpy_helper.from_array(np.array([1, 10]), "shape"))
    images = load_dataset(dataset).part("test")[0]
    want = open_runner(adopt(tmp_path, dataset, classifier()).path).infer(images)
    stage = adopt(tmp_path, dataset, proto)
    assert stage.metrics["notes"] == [
        "says that it takes any number of images, and fails on two; its batch is fixed at 1"
    ]
    assert stage.metrics["fixed_batch"] == 1
    np.testing.assert_allclose(open_runner(stage.path).infer(images), want, atol=1e-6)


def test_a_custom_operator_that_the_runtime_knows_is_a_black_box_and_said(tmp_path: Path, dataset: str) -> None:
    proto = classifier(tail=[helper.make_node("CDist", ["z", "corners"], ["y"], domain="com.microsoft")])
    proto.graph.initializer.append(numpy_helper.from_array(-100 * np.eye(10, dtype=np.float32), "corners"))
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    stage = adopt(tmp_path, dataset, proto)
    (note,) = (note for note in stage.metrics["notes"] if "black box" in note)
    assert "com.microsoft.CDist" in note and "only attacks without gradients reach it" in note
