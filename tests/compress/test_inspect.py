"""What `compress inspect` says of artifacts: held against their files, graphs made by hand, and damaged ones."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compress.cli.execute import execute
from compress.cli.inspect import inspection_lines
from compress.networks import network_files
from edge.core import artifact
from edge.core.errors import CompressError
from export.inspection import inspect_artifact
from export.targets.onnx.layers import describe_graph


def constant(name: str, value: Any, kind: type) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(value, kind), name)


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A convolution with INT8 weights, one in float, and their sum; one pair unsigned, one signed."""
    weights = np.arange(2 * 1 * 3 * 3).reshape(2, 1, 3, 3)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "sx", "zx"], ["xq"], "quantize_x"),
        helper.make_node("DequantizeLinear", ["xq", "sx", "zx"], ["xd"], "dequantize_x"),
        helper.make_node("DequantizeLinear", ["a.weight_int8", "sw", "zw"], ["aw"], "dequantize_a", axis=0),
        helper.make_node("Conv", ["xd", "aw", "a.bias"], ["ya"], "conv_a", pads=[1, 1, 1, 1]),
        helper.make_node("QuantizeLinear", ["ya", "sy", "zy"], ["yq"], "quantize_y"),
        helper.make_node("DequantizeLinear", ["yq", "sy", "zy"], ["yd"], "dequantize_y"),
        helper.make_node("Conv", ["yd", "b.weight"], ["yb"], "conv_b", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["yb", "ya"], ["sum"], "sum"),
        helper.make_node("ReduceMean", ["sum", "axes"], ["logits"], keepdims=0),
    ]
    stored = [
        constant("sx", 1 / 255, np.float32),
        constant("zx", 0, np.uint8),
        constant("sy", 0.5, np.float32),
        constant("zy", 0, np.int8),
        constant("sw", [0.25, 0.125], np.float32),
        constant("zw", [0, 0], np.int8),
        constant("a.weight_int8", weights, np.int8),
        constant("a.bias", [1, 2], np.float32),
        constant("b.weight", np.ones((2, 2, 3, 3)), np.float32),
        constant("axes", [2, 3], np.int64),
    ]
    graph = helper.make_graph(
        nodes,
        "mixed",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1, 4, 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])],
        stored,
    )
    path = tmp_path / "mixed.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9), path)
    return path


def test_a_graph_made_by_hand(mixed: Path) -> None:
    found = inspect_artifact(mixed)
    graph = found["graph"]
    assert (graph["opset"], graph["ir_version"], found["kind"]) == (19, 9, "onnx file")
    rows = {row["name"]: row for row in graph["layers"]}
    assert list(rows) == ["a", "b", "sum"]
    assert rows["a"]["weight"] == [2, 1, 3, 3] and rows["a"]["stored"] == "int8" and rows["a"]["parameters"] == 18
    assert rows["a"]["bytes"] == 18 + 2 * 4 + 2 + 2 * 4  # levels, scales, zero points, bias
    assert rows["b"]["stored"] == "float32" and rows["b"]["bytes"] == 36 * 4
    assert rows["b"]["execution"] == "float" and rows["sum"]["weight"] is None
    assert graph["stored_bytes"] == {"float32": 36 * 4 + 4 + 4 + 8 + 8, "int8": 18 + 2 + 1, "uint8": 1, "int64": 16}
    told = graph["quantization"]
    assert (told["pairs"], told["signed"], told["unsigned"], told["zero_points"]) == (2, 1, 1, {"0": 2})
    assert told["scales"] == pytest.approx({"min": 1 / 255, "median": (1 / 255 + 0.5) / 2, "max": 0.5})
    assert told["weight_scales"] == {"min": 0.125, "median": 0.1875, "max": 0.25}
    assert told["weights"] == {"int8": 1} and told["left_float"] == ["b"]
    assert found["contract"]["input"]["shape"] == ["batch", 1, 4, 4] and found["contract"]["labels"] is None
    assert found["files"][0]["verified"] is None and found["lineage"] == []
    text = "\n".join(inspection_lines(found))
    assert "left float   b" in text and "what a pixel's values mean is not said" in text


def test_what_executes_is_the_layer_and_not_the_cast_before_it(mixed: Path, tmp_path: Path) -> None:
    """Half-precision weights pass a Cast on processors, 8-bit ones that found no integer kernel a DequantizeLinear."""
    rows = {row["name"]: row for row in inspect_artifact(mixed)["graph"]["layers"]}
    assert rows["a"]["executed_by"] in ("Conv", "QLinearConv") and rows["b"]["executed_by"] == "Conv"
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], "half", to=TensorProto.FLOAT16),
        helper.make_node("Gemm", ["h", "fc.weight"], ["y"], "fc"),
        helper.make_node("Cast", ["y"], ["logits"], "float", to=TensorProto.FLOAT),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in ("x", "logits")]
    graph = helper.make_graph(nodes, "half", ends[:1], ends[1:], [constant("fc.weight", np.eye(4), np.float16)])
    path = tmp_path / "half.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9), path)
    (row,) = inspect_artifact(path)["graph"]["layers"]
    assert (row["stored"], row["execution"], row["executed_by"]) == ("float16", "float", "Gemm")


def test_weights_that_the_graph_itself_rounds_are_no_float_layer(mixed: Path) -> None:
    """As quantization-aware training in torch exports them: a float weight, QuantizeLinear, DequantizeLinear."""
    proto = onnx.load(mixed)
    (place,) = [k for k, node in enumerate(proto.graph.node) if "b.weight" in node.input]
    proto.graph.node[place].input[1] = "rounded"
    names = ["b.weight", "one", "zero16"]
    pair = [
        helper.make_node("QuantizeLinear", names, ["levels"]),
        helper.make_node("DequantizeLinear", ["levels", *names[1:]], ["rounded"]),
    ]
    for node in reversed(pair):
        proto.graph.node.insert(0, node)
    proto.graph.initializer.extend([constant("one", 0.5, np.float32), constant("zero16", 0, np.int16)])
    proto.opset_import[0].version, proto.ir_version = 21, 10
    onnx.save(proto, mixed)
    graph = inspect_artifact(mixed)["graph"]
    (row,) = [row for row in graph["layers"] if row["name"] == "b"]
    assert (row["stored"], row["rounded"]) == ("float32", "int16") and graph["quantization"]["left_float"] == []
    told = graph["quantization"]
    assert (told["pairs"], told["signed"], told["unsigned"]) == (2, 1, 1) and told["weights"] == {"int8": 1, "int16": 1}


def test_a_weight_in_a_constant_node_is_seen(mixed: Path) -> None:
    proto = onnx.load(mixed)
    (weight,) = [entry for entry in proto.graph.initializer if entry.name == "b.weight"]
    proto.graph.node.insert(0, helper.make_node("Constant", [], ["b.weight"], "held", value=weight))
    proto.graph.initializer.remove(weight)
    assert [row["name"] for row in describe_graph(proto, None)["layers"]] == ["a", "b", "sum"]


def test_without_a_runtime_graph_nothing_is_said_of_execution(mixed: Path) -> None:
    assert {row["execution"] for row in describe_graph(onnx.load(mixed), None)["layers"]} == {None}


def test_the_exported_int8_stage(chain: SimpleNamespace) -> None:
    found = inspect_artifact(chain.e)
    stage = artifact.read(chain.e)
    assert found["identity"] == stage.identity and found["precision"] == "int8" and found["model"] == "resnet8"
    assert found["contract"] == json.loads((chain.e / "contract.json").read_text())
    assert {entry["name"] for entry in found["files"]} == {*stage.manifest["payload"], *stage.manifest["records"]}
    layers = [row for row in found["graph"]["layers"] if row["weight"]]
    state = network_files.read_weights(chain.quantized)
    assert {row["name"]: row["weight"] for row in layers} == {
        name.removesuffix(".weight"): list(value.shape) for name, value in state.items() if name.endswith(".weight")
    }
    assert {row["stored"] for row in layers} == {"int8"}
    convolutions = [row for row in layers if row["op"] == "Conv"]
    assert {(row["execution"], row["executed_by"]) for row in convolutions} == {("integer", "QLinearConv")}
    assert found["graph"]["quantization"]["left_float"] == []
    assert sum(row["bytes"] for row in layers) < (chain.e / "model.onnx").stat().st_size


def test_the_exported_float_stage(chain: SimpleNamespace) -> None:
    graph = inspect_artifact(chain.ef)["graph"]
    assert graph["quantization"] is None
    assert {(row["stored"], row["execution"]) for row in graph["layers"] if row["weight"]} == {("float32", "float")}
    proto = onnx.load(chain.ef / "model.onnx")
    naive = sum(numpy_helper.to_array(entry).nbytes for entry in proto.graph.initializer)
    assert sum(graph["stored_bytes"].values()) == naive


def test_lineage_reaches_the_teacher(chain: SimpleNamespace) -> None:
    found = [(row["role"], row["depth"], row["state"], row["kind"]) for row in inspect_artifact(chain.e)["lineage"]]
    assert found[:3] == [
        ("model", 1, "found", "quantized"),
        ("student", 2, "found", "student"),
        ("teacher", 3, "found", "teacher"),
    ]
    told = [row["identity"] for row in inspect_artifact(chain.a)["lineage"]]
    assert artifact.read(chain.teacher).identity in told


def test_lineage_tells_what_is_gone_changed_or_damaged(chain: SimpleNamespace, tmp_path: Path) -> None:
    for name in ("teacher", "student", "quantized", "e"):
        shutil.copytree(chain.root / name, tmp_path / name)
    states = lambda: {row["role"]: row["state"] for row in inspect_artifact(tmp_path / "e")["lineage"]}  # noqa: E731
    assert states()["teacher"] == "found"
    shutil.rmtree(tmp_path / "teacher")
    assert states()["teacher"] == "absent"
    shutil.copytree(chain.student, tmp_path / "teacher")
    assert states()["teacher"] == "changed"
    (tmp_path / "student/weights.safetensors").write_bytes(b"short")
    assert states() == {"model": "found", "student": "damaged"} | (
        {"teacher": "changed"} if "teacher" in states() else {}
    )


def test_a_torch_stage(chain: SimpleNamespace) -> None:
    found = inspect_artifact(chain.quantized)
    layout = json.loads((chain.quantized / "quantizer.json").read_text())
    told = found["graph"]["quantization"]
    assert told["pairs"] == len(layout["unsigned"]) == told["signed"] + told["unsigned"]
    assert told["unsigned"] == sum(layout["unsigned"].values())
    graph = inspect_artifact(chain.e)["graph"]["quantization"]  # the same state, as the file for ONNX Runtime has it
    assert told["scales"]["max"] == pytest.approx(graph["scales"]["max"], rel=1e-6)
    assert told["weight_scales"] == pytest.approx(graph["weight_scales"], rel=1e-6)
    assert found["contract"]["labels"] == [str(digit) for digit in range(10)]
    state = network_files.read_weights(chain.student)
    rows = inspect_artifact(chain.student)["graph"]["layers"]
    assert sum(row["parameters"] for row in rows) == sum(v.numel() for v in state.values() if v.ndim > 1)
    assert inspect_artifact(chain.a)["graph"] is None, "an attack set holds no network"


LAYERS = {
    "precisions": {"int8": 1, "fp16": 1},
    "weighted": {"conv_a": "int8", "conv_b": "fp16"},
    "not_int8": ["conv_b"],
    "unseen": [],
    "apart": ["sum"],
    "layers": [
        {"name": "conv_a + relu", "type": "conv", "nodes": ["conv_a"], "weighted": True, "precision": "int8"},
        {"name": "conv_b", "type": "conv", "nodes": ["conv_b"], "weighted": True, "precision": "fp16"},
    ],
}


def engine(place: Path) -> Path:
    """An engine's folder as a device keeps it: the plan is bytes that nothing may open."""
    place.mkdir()
    content = b"never opened"
    (place / "engine.plan").write_bytes(content)
    about = {
        "format": 1,
        "sha256": artifact.bytes_sha256(content),
        "library": {"target": "tensorrt", "version": "10.3.0"},
        "device": {"name": "Orin"},
        "compute_capabilities": ["8.7"],
        "system": "linux",
        "machine": "aarch64",
        "precision": "int8",
    }
    (place / "engine.json").write_text(json.dumps(about))
    (place / "layers.json").write_text(json.dumps(LAYERS))
    return place


def test_an_engine_beside_its_sidecars(tmp_path: Path) -> None:
    place = engine(tmp_path / "built")
    for where in (place, place / "engine.plan"):
        found = inspect_artifact(where)
        assert (found["kind"], found["target"], found["precision"]) == ("engine", "tensorrt", "int8")
        assert {entry["name"]: entry["verified"] for entry in found["files"]}["engine.plan"] is True
        assert found["engine"]["layers"]["not_int8"] == ["conv_b"] and len(found["engine"]["rows"]) == 2
    text = "\n".join(inspection_lines(found))
    assert "10.3.0, for Orin" in text and "executed otherwise: conv_b" in text
    (place / "engine.plan").write_bytes(b"something else")
    with pytest.raises(CompressError, match=r"sha256 .* engine\.json says"):
        inspect_artifact(place)


def test_layers_of_an_engine_by_the_graph_it_was_built_from(mixed: Path, tmp_path: Path) -> None:
    from export import inspection as engines

    found = engines.describe_engine(engine(tmp_path / "built"))
    assert found is not None
    rows = engines.layers_in_engine(describe_graph(onnx.load(mixed), None)["layers"], found)
    assert {row["name"]: row["execution"] for row in rows} == {"a": "int8", "b": "fp16", "sum": None}


@pytest.mark.parametrize("kind", ["damaged", "missing", "text", "cut", "plan", "partial"])
def test_what_is_no_artifact_is_refused_in_one_line(
    kind: str, chain: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = {"cut": "cut.onnx", "text": "notes.txt", "plan": "engine.plan", "partial": "x.partial"}.get(kind, "x")
    path = tmp_path / where
    if kind == "damaged":
        shutil.copytree(chain.e, path)
        content = bytearray((path / "model.onnx").read_bytes())
        content[-1] ^= 1
        (path / "model.onnx").write_bytes(content)
    elif kind == "partial":
        path.mkdir()
    elif kind == "cut":
        path.write_bytes((chain.e / "model.onnx").read_bytes()[:-100])
    elif kind != "missing":
        path.write_bytes(b"?")
    assert execute(["inspect", str(path)]) == 2
    out, err = capsys.readouterr()
    assert not out and len(err.splitlines()) == 1 and where in err


def test_an_onnx_file_needs_no_torch(mixed: Path) -> None:
    program = (
        "import sys; from compress.cli.execute import execute; sys.argv = ['compress'];"
        f"code = execute(['inspect', {str(mixed)!r}, '--json']); assert 'torch' not in sys.modules; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["graph"]["layers"][0]["name"] == "a"


def test_every_stage_of_a_chain_has_its_text(chain: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    for where in (chain.teacher, chain.student, chain.quantized, chain.e, chain.ef, chain.a):
        assert execute(["inspect", str(where)]) == 0
        out, err = capsys.readouterr()
        assert str(where) in out and "files" in out and not err
