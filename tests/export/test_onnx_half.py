"""FP16 and BF16 graphs: which tensors change their type, and what the file then computes."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from edge.core.errors import CompressError
from export.targets.onnx import half
from tests.compress import graphs


def small() -> onnx.ModelProto:
    """x → Conv → Clip by constants → Shape, Reshape → Gemm → y, 3 classes; integers and floats among the constants."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "conv"),
        helper.make_node("Constant", [], ["top"], "top", value=numpy_helper.from_array(np.float32(0.75))),
        helper.make_node("Clip", ["a", "", "top"], ["b"], "clip"),
        helper.make_node("Cast", ["b"], ["c"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["c", "shape"], ["d"], "reshape"),
        helper.make_node("Gemm", ["d", "m", "v"], ["y"], "gemm", transB=1),
    ]
    values = {
        "w": rng.normal(size=(2, 3, 3, 3)).astype(np.float32),
        "shape": np.array([-1, 32], np.int64),
        "m": rng.normal(size=(3, 32)).astype(np.float32),
        "v": rng.normal(size=3).astype(np.float32),
    }
    proto = onnx.load_model_from_string(graphs.model(nodes, values))
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3]))
    return proto


def converted(kind: str) -> onnx.ModelProto:
    proto = small()
    if kind == "bf16":
        proto.opset_import[0].version = half.LEAST_OPSET[kind]
    half.to_half(proto, kind, {"conv": "stem.conv"})
    return proto


@pytest.mark.parametrize("kind", ["fp16", "bf16"])
def test_everything_between_the_ends_has_the_type_and_integers_stay(kind: str) -> None:
    proto = converted(kind)
    onnx.checker.check_model(proto, full_check=True)
    number = half.KINDS[kind][0]
    inferred = onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True)
    types = {entry.name: entry.type.tensor_type.elem_type for entry in inferred.graph.value_info}
    assert {types[name] for name in ("a", "b", "c", "d", "top")} == {number}
    stored = {entry.name: entry.data_type for entry in proto.graph.initializer}
    assert stored == {"w": number, "shape": TensorProto.INT64, "m": number, "v": number}
    for end in (proto.graph.input[0], proto.graph.output[0]):
        assert end.type.tensor_type.elem_type == TensorProto.FLOAT
    assert (proto.graph.input[0].name, proto.graph.output[0].name) == ("x", "y")


def test_fp16_computes_what_float32_does_to_its_rounding() -> None:
    x = np.random.default_rng(1).random((5, *graphs.SHAPE), np.float32)
    want, got = graphs.run(small().SerializeToString(), x), graphs.run(converted("fp16").SerializeToString(), x)
    assert got.dtype == np.float32
    assert 0 < np.abs(got - want).max() < 32 * 2**-10 * np.abs(want).max()


@pytest.mark.parametrize("kind", ["fp16", "bf16"])
def test_weights_are_the_nearest_of_the_type(kind: str) -> None:
    (weight,) = (entry for entry in converted(kind).graph.initializer if entry.name == "w")
    (plain,) = (entry for entry in small().graph.initializer if entry.name == "w")
    want = torch.from_numpy(numpy_helper.to_array(plain).copy()).to(half.KINDS[kind][1]).float().numpy()
    np.testing.assert_array_equal(numpy_helper.to_array(weight).astype(np.float32), want)
    assert np.abs(want - numpy_helper.to_array(plain)).max() > 0


def test_a_weight_beyond_the_range_is_named_with_its_layer() -> None:
    proto = small()
    weight = proto.graph.initializer[0]
    weight.CopyFrom(numpy_helper.from_array(np.full((2, 3, 3, 3), 7e4, np.float32), "w"))
    with pytest.raises(CompressError, match=r"layer stem\.conv: holds a weight of 7e\+04, fp16 ends at 65504"):
        half.to_half(proto, "fp16", {"conv": "stem.conv"})
    half.to_half(proto, "bf16", {})  # whose range is float32's
