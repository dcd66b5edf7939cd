"""What libraries say of a file: their reason is kept, the C++ around it is not; what is no model is named."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edge.core.errors import CompressError, first_line
from edge.runtimes.onnxruntime.runner import OnnxRunner

SIGNATURE = "onnxruntime::Model::Model(onnx::ModelProto&&, const PathString&, const std::function<void(int)>&)"


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (
            f"[ONNXRuntimeError] : 1 : FAIL : /src/core/graph/model.cc:256 {SIGNATURE} Unsupported: 99",
            "Unsupported: 99",
        ),
        ("/a/b.h:46 void x::(anonymous namespace)::Go<T>(int) const [with T = float] The reason", "The reason"),
        ("[/pytorch/third_party/gloo/pair.cc:543] Connection closed", "Connection closed"),
        ("utils.cc:461 ValidatePath External data is gone", "External data is gone"),
        (
            "[optimizer.cpp::computeCosts::4048] Error Code 10: Internal Error (No plan)",
            "Error Code 10: Internal Error (No plan)",
        ),
        ("importers.cpp:1234 In function importFoo: [8] Assertion failed: x == 3", "[8] Assertion failed: x == 3"),
        ("Error(s) in loading state_dict:\n\tMissing key(s): a", "Error(s) in loading state_dict: Missing key(s): a"),
        ("Traceback (most recent call last):\n  File x\nValueError: bad", "ValueError: bad"),
        ("CUDA error: out of memory\nCUDA kernel errors might be asynchronous", "CUDA error: out of memory"),
        ("shapes cannot be multiplied (2x3 and 4x5)", "shapes cannot be multiplied (2x3 and 4x5)"),
    ],
)
def test_the_reason_is_kept(said: str, kept: str) -> None:
    assert first_line(RuntimeError(said)) == kept


def test_what_is_too_long_loses_its_middle_and_what_says_nothing_is_its_type() -> None:
    line = first_line("where " + "x" * 500 + " why")
    assert len(line) == 200 and line.startswith("where ") and line.endswith(" why") and " … " in line
    assert first_line(KeyError()) == "KeyError"


def model() -> onnx.ModelProto:
    weights = helper.make_tensor("W", TensorProto.FLOAT, [64, 10], [0.0] * 640)
    ends = [helper.make_tensor_value_info(*end) for end in (("x", 1, ["N", 1, 8, 8]), ("y", 1, ["N", 10]))]
    nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("MatMul", ["f", "W"], ["y"], "head")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weights])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def changed(change: Callable[[onnx.ModelProto], None]) -> bytes:
    proto = model()
    change(proto)
    return proto.SerializeToString()


def elsewhere(proto: onnx.ModelProto) -> None:
    (weights,) = proto.graph.initializer
    weights.ClearField("float_data")
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="weights.bin")


def of_acme(proto: onnx.ModelProto) -> None:
    proto.opset_import.extend([helper.make_opsetid("com.acme", 3)])
    proto.graph.node[1].domain = "com.acme"


WHOLE = model().SerializeToString()
FILES: dict[str, tuple[bytes, str]] = {
    "ir": (
        changed(lambda m: setattr(m, "ir_version", 99)),
        r"IR version 99, ONNX Runtime [\d.]+ reads up to \d+: upgrade it, or set ir_version$",
    ),
    "opset": (
        changed(lambda m: setattr(m.opset_import[0], "version", 99)),
        r"opset 99, ONNX Runtime [\d.]+ reads up to \d+: upgrade it",
    ),
    "an opset of a domain": (
        changed(lambda m: m.opset_import.extend([helper.make_opsetid("ai.onnx.ml", 99)])),
        "opset 99 of ai.onnx.ml, ONNX",
    ),
    "an operator": (changed(lambda m: setattr(m.graph.node[1], "op_type", "Foo")), "operator Foo is not in opset 18"),
    "a domain": (changed(of_acme), r"operator com\.acme\.MatMul is unknown to ONNX Runtime"),
    "a domain that is not imported": (
        changed(lambda m: setattr(m.graph.node[1], "domain", "com.acme")),
        r"uses operators of com\.acme",
    ),
    "an attribute": (
        changed(lambda m: m.graph.node[1].attribute.append(helper.make_attribute("bogus", 3))),
        r"node head \(MatMul\) is invalid, Unrecognized attribute: bogus",
    ),
    "weights elsewhere": (changed(elsewhere), r"keeps weights in another file \(weights\.bin\), which no hash"),
    "shapes": (
        changed(
            lambda m: m.graph.initializer[0].dims.__setitem__(0, 32) or m.graph.initializer[0].dims.__setitem__(1, 20)
        ),
        "Incompatible dimensions for matrix multiplication",
    ),
    "nothing": (b"", r"is empty \(0 bytes\)"),
    "a pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 26454\n",
        "is a Git LFS pointer, not the file; run: git lfs pull",
    ),
    "a page": (b"\n<!DOCTYPE html><html>Not found</html>", "is an HTML page"),
    "an answer": (b'{"message": "Not Found"}', r"is text \(JSON\)"),
    "a checkpoint": (b"PK\x03\x04" + bytes(40), "is a zip archive or a PyTorch checkpoint"),
    "half": (WHOLE[: len(WHOLE) // 2], r"is no ONNX file, or not the whole of one \([\d,]+ bytes\)"),
    "no graph": (b"\x08\x09", "holds no graph"),
}


@pytest.mark.parametrize("kind", FILES)
def test_why_a_file_is_not_opened(kind: str) -> None:
    content, message = FILES[kind]
    with pytest.raises(CompressError, match=message) as fault:
        OnnxRunner(content, where="m.onnx", batch_size=2, threads=1)
    line = str(fault.value)
    assert (
        line.startswith("m.onnx: ")
        and "\n" not in line
        and "::" not in line
        and "/" not in line.replace("https://", "")
    )


def test_why_a_file_fails_on_images() -> None:
    def fixed(proto: onnx.ModelProto) -> None:
        proto.graph.node[0].CopyFrom(helper.make_node("Reshape", ["x", "s"], ["f"], "flat"))
        proto.graph.initializer.append(helper.make_tensor("s", TensorProto.INT64, [2], [2, 64]))

    runner = OnnxRunner(changed(fixed), where="m.onnx", batch_size=5, threads=1)
    with pytest.raises(CompressError) as fault:
        runner.infer(np.zeros((5, 1, 8, 8), np.float32))
    line = str(fault.value)
    assert line.startswith("m.onnx: fails on 5 images (Reshape node flat: ") and line.endswith("; export it again")
    assert "cannot be reshaped to the requested shape. Input shape:{5,1,8,8}, requested shape:{2,64}" in line
    assert "::" not in line


def test_the_command_line_says_the_same(tmp_path: Path) -> None:
    """Exit 2, one line, nothing written."""
    (tmp_path / "ir.onnx").write_bytes(FILES["ir"][0])
    line = [sys.executable, "-m", "compress", "export", "ir.onnx", "--target", "onnx", "--data", "digits", "--out", "e"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "IR version 99" in done.stderr and done.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ir.onnx"]
