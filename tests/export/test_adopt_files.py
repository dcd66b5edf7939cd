"""Files of other tools that are not whole, keep weights elsewhere or are no classifiers: a line each, nothing left."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import export.stage
from compress.cli.execute import execute
from compress.config import ExportConfig, parse
from edge import open_runner
from edge.core import artifact
from edge.core.artifact import Stage
from edge.core.errors import CompressError
from export.contract import graph_inputs
from tests.compress import graphs

CONFIG = parse(ExportConfig, {"data": "digits"}, "test")


def adopt(path: Path) -> Stage:
    return export.stage.run(CONFIG, export.stage.ExportInputs(path), path.parent / "e")


def with_data(folder: Path, location: str = "weights.data") -> Path:
    """As torch writes it: weights in a file beside it."""
    proto = onnx.load_model_from_string(graphs.linear_digits())
    path = folder / "foreign.onnx"
    onnx.save_model(proto, path, save_as_external_data=True, location=location, size_threshold=0)
    return path


def test_weights_beside_it_are_taken_in(tmp_path: Path) -> None:
    path = with_data(tmp_path)
    stage = adopt(path)
    (tmp_path / "weights.data").rename(tmp_path / "elsewhere")
    whole = tmp_path / "whole"
    whole.mkdir()
    (whole / "foreign.onnx").write_bytes(graphs.linear_digits())
    x = np.random.default_rng(0).random((3, 1, 8, 8), np.float32)
    with open_runner(stage.path) as runner, open_runner(adopt(whole / "foreign.onnx").path) as plain:
        np.testing.assert_array_equal(runner.infer(x), plain.infer(x))
    data = artifact.file_sha256(tmp_path / "elsewhere")
    assert stage.metrics["original"]["beside it"] == {"weights.data": data} == stage.config["beside"]
    assert stage.config["adopted"] == artifact.file_sha256(path)


def moved(proto: onnx.ModelProto, **entries: str) -> None:
    """Where the first weights lie, rewritten."""
    tensor = next(entry for entry in proto.graph.initializer if entry.external_data)
    kept = {entry.key: entry.value for entry in tensor.external_data} | entries
    del tensor.external_data[:]
    for key, value in kept.items():
        tensor.external_data.add(key=key, value=value)


def linked(folder: Path) -> None:
    (folder / "weights.data").rename(folder / "real")
    os.symlink(folder / "real", folder / "weights.data")


def pointer(folder: Path) -> None:
    (folder / "weights.data").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 99\n")


def cut(folder: Path) -> None:
    (folder / "weights.data").write_bytes((folder / "weights.data").read_bytes()[:100])


@pytest.mark.parametrize(
    ("entries", "harm", "message"),
    [
        ({"location": "../weights.data"}, None, r"'\.\./weights\.data', outside its folder.*external_data=False"),
        ({"location": "/etc/passwd"}, None, r"'/etc/passwd', outside its folder"),
        ({"location": "a\\..\\weights.data"}, None, "outside its folder"),
        ({"location": ""}, None, "outside its folder"),
        ({"length": "12"}, None, r"of shape \[64, 10\] takes 2,560 bytes, the file says 12 from \d+ of weights\.data"),
        ({"offset": "-4"}, None, "the file says 2560 from -4"),
        ({"offset": "many"}, None, "the file says 2560 from many"),
        ({}, linked, r"weights\.data, which is a link"),
        ({}, pointer, r"weights\.data, which is a Git LFS pointer, not the file; run: git lfs pull"),
        ({}, cut, r"weights\.data ends after 100 bytes, tensor '\w+' lies in"),
        ({}, lambda folder: (folder / "weights.data").unlink(), r"weights\.data, which is not there; put it beside"),
    ],
)
def test_weights_that_are_not_where_they_are_said_to_be(
    tmp_path: Path, entries: "dict[str, str]", harm: "Callable[[Path], None] | None", message: str
) -> None:
    path = with_data(tmp_path)
    proto = onnx.load(path, load_external_data=False)
    moved(proto, **entries)
    path.write_bytes(proto.SerializeToString())
    if harm is not None:
        harm(tmp_path)
    refused(path, message)


def test_weights_of_a_type_that_is_none(tmp_path: Path) -> None:
    path = with_data(tmp_path)
    proto = onnx.load(path, load_external_data=False)
    next(entry for entry in proto.graph.initializer if entry.external_data).data_type = 77
    path.write_bytes(proto.SerializeToString())
    refused(path, r"tensor '\w+' is of type 77, which onnx .* does not know")
    assert execute(["inspect", str(path)]) == 2


def refused(path: Path, message: str) -> None:
    with pytest.raises(CompressError, match=message) as fault:
        adopt(path)
    assert "\n" not in str(fault.value) and path.name in str(fault.value)
    assert not (path.parent / "e").exists() and not (path.parent / "e.partial").exists()


def changed(change: "Callable[[onnx.ModelProto], object]") -> bytes:
    proto = onnx.load_model_from_string(graphs.linear_digits())
    change(proto)
    return proto.SerializeToString()


def cycle(proto: onnx.ModelProto) -> None:
    proto.graph.node[1].input[2] = "y"  # the bias is what becomes of it


def rank_three(proto: onnx.ModelProto) -> None:
    proto.graph.node[-1].output[0] = "flat logits"
    proto.graph.node.append(helper.make_node("Reshape", ["flat logits", "shape"], ["y"]))
    proto.graph.initializer.append(numpy_helper.from_array(np.array([-1, 5, 2]), "shape"))
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 5, 2]))


def unstated_rank_three(proto: onnx.ModelProto) -> None:
    rank_three(proto)
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, None))


def unknown_operator(proto: onnx.ModelProto) -> None:
    proto.graph.node[-1].domain = "com.mine"
    proto.opset_import.append(helper.make_opsetid("com.mine", 1))


def integers(proto: onnx.ModelProto) -> None:
    proto.graph.node[-1].output[0] = "logits"
    proto.graph.node.append(helper.make_node("ArgMax", ["logits"], ["y"], axis=1))
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.INT64, ["N", 1]))


RUNTIME = onnxruntime.__version__.replace(".", r"\.")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (graphs.linear_digits()[:-200], r"is no ONNX file, or not the whole of one"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 12\n", "is a Git LFS pointer.*git lfs pull"),
        (b"", r"is empty \(0 bytes\)"),
        (
            changed(lambda proto: setattr(proto, "ir_version", 99)),
            rf"IR version 99, ONNX Runtime {RUNTIME} reads up to",
        ),
        (
            changed(lambda proto: setattr(proto.opset_import[0], "version", 99)),
            rf"opset 99, ONNX Runtime {RUNTIME} reads up to \d+",
        ),
        (changed(cycle), "its graph has a cycle"),
        (changed(rank_three), r"gives y float \(N, 5, 2\); a classifier gives float logits \(N,K\)"),
        (changed(unstated_rank_three), r"gives y .*5, 2\)"),
        (changed(unknown_operator), rf"operator com\.mine\.Mul is unknown to ONNX Runtime {RUNTIME}"),
        (changed(integers), r"gives y int64 \(N, 1\)"),
        (changed(lambda proto: proto.graph.ClearField("node")), "foreign.onnx"),
        (changed(lambda proto: proto.ClearField("graph")), "foreign.onnx"),
    ],
)
def test_a_file_that_is_no_classifier_or_not_whole(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "foreign.onnx").write_bytes(content)
    refused(tmp_path / "foreign.onnx", message)


@pytest.mark.parametrize("content", [b"", b"\x80\x02c", b"version https://git-lfs.github.com/spec/v1\n"])
def test_nothing_is_shown_of_a_file_without_a_graph(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "foreign.onnx").write_bytes(content)
    assert execute(["inspect", str(tmp_path / "foreign.onnx")]) == 2


def test_an_initializer_that_is_an_input_too(tmp_path: Path) -> None:
    def stated(proto: onnx.ModelProto) -> None:
        entries = [
            helper.make_tensor_value_info(entry.name, entry.data_type, entry.dims) for entry in proto.graph.initializer
        ]
        proto.graph.input.extend(entries)

    content = changed(stated)
    (tmp_path / "foreign.onnx").write_bytes(content)
    stage = adopt(tmp_path / "foreign.onnx")
    assert stage.file("model.onnx").read_bytes() == content
    assert len(onnx.load_model_from_string(content).graph.input) > len(
        graph_inputs(onnx.load_model_from_string(content))
    )
