"""The precision in a statement is what the layers with weights compute in: types and quantizers along the data flow."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.targets.onnx.precision import precision_of

node = helper.make_node
T = TensorProto


def graph(nodes: Sequence[Any], stored: "dict[str, np.ndarray]", *tensors: Any) -> onnx.ModelProto:
    """From `x` to `y`; `tensors` are constants of types that numpy lacks."""
    ends = [helper.make_tensor_value_info(name, T.FLOAT, ["N", 8]) for name in ("x", "y")]
    constants = [numpy_helper.from_array(value, name) for name, value in stored.items()]
    made = helper.make_graph(list(nodes), "g", ends[:1], ends[1:], [*constants, *tensors])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)])


SCALE = {"s": np.array(0.1, np.float32)}
#: numpy's types, and those that ONNX alone has
ZEROS: dict[int, Any] = {
    kind: helper.make_tensor("z", kind, [], [0])
    for kind in (T.INT8, T.UINT8, T.INT16, T.UINT16, T.INT4, T.UINT4, T.FLOAT8E4M3FN, T.FLOAT8E5M2)
}


def levels(kind: int) -> Any:
    return helper.make_tensor("w", kind, [8, 8], [1] * 64)


def pair(source: str, result: str, zero: str = "z", domain: str = "", **given: Any) -> list[Any]:
    """A rounding to a grid, in floats again."""
    names = [source, "s", zero] if zero else [source, "s"]
    quantize = node("QuantizeLinear", names, [f"{result}q"], domain=domain, **given)
    return [quantize, node("DequantizeLinear", [f"{result}q", *names[1:]], [result], domain=domain)]


def quantized(kind: int, weights: "int | None" = None, domain: str = "") -> onnx.ModelProto:
    """x and the weights on a grid each, the product in floats, as exporters lay it out."""
    nodes = [
        *pair("x", "a", domain=domain),
        node("DequantizeLinear", ["w", "s"], ["b"], domain=domain),
        node("MatMul", ["a", "b"], ["y"]),
    ]
    return graph(nodes, SCALE, ZEROS[kind], levels(weights or kind))


def floats(kind: int) -> onnx.ModelProto:
    return graph(
        [node("Cast", ["x"], ["h"], to=kind), node("MatMul", ["h", "w"], ["p"]), node("Cast", ["p"], ["y"], to=1)],
        {},
        levels(kind),
    )


def in_floats_but_for(*nodes: Any, stored: "dict[str, np.ndarray] | None" = None) -> onnx.ModelProto:
    constants = {**SCALE, "W": np.eye(8, dtype=np.float32), "z": np.array(0, np.int8), "w": np.eye(8, dtype=np.int8)}
    return graph(nodes, {**constants, **(stored or {})})


WEIGHTS_ALONE = (node("DequantizeLinear", ["w", "s"], ["b"]), node("MatMul", ["x", "b"], ["y"]))
CASES: dict[str, tuple[onnx.ModelProto, str]] = {
    "float32": (floats(T.FLOAT), "float32"),
    "fp16": (floats(T.FLOAT16), "fp16"),
    "bf16": (floats(T.BFLOAT16), "bf16"),
    "fp16 stored, float32 computed": (
        graph([node("Cast", ["w"], ["b"], to=1), node("MatMul", ["x", "b"], ["y"])], {}, levels(T.FLOAT16)),
        "float32",
    ),
    "int8": (quantized(T.INT8), "int8"),
    "uint8 and int8": (quantized(T.UINT8, T.INT8), "int8"),
    "int16": (quantized(T.INT16), "int16"),
    "uint16 activations": (quantized(T.UINT16, T.INT8), "int8 weights, int16 activations"),
    "int4 weights": (quantized(T.UINT8, T.INT4), "int4 weights, int8 activations"),
    "int4": (quantized(T.UINT4, T.INT4), "int4"),
    "float8": (quantized(T.FLOAT8E4M3FN), "fp8"),
    "float8 of two kinds": (quantized(T.FLOAT8E5M2, T.FLOAT8E4M3FN), "fp8"),
    "of another domain": (quantized(T.UINT16, domain="com.microsoft"), "int16"),
    "weights alone": (in_floats_but_for(*WEIGHTS_ALONE), "float32 with int8 weights"),
    "weights alone, in blocks": (
        graph(
            [node("MatMulNBits", ["x", "B", "S"], ["y"], domain="com.microsoft", K=8, N=8, bits=4, block_size=16)],
            {"B": np.zeros((8, 1, 8), np.uint8), "S": np.ones(8, np.float32)},
        ),
        "float32 with int4 weights",
    ),
    "weights rounded in the graph": (
        in_floats_but_for(*pair("x", "a"), *pair("W", "b"), node("MatMul", ["a", "b"], ["y"])),
        "int8",
    ),
    "a type that is stated": (
        in_floats_but_for(
            *pair("x", "a", "", output_dtype=T.INT16),
            *pair("W", "b", "", output_dtype=T.INT16),
            node("MatMul", ["a", "b"], ["y"]),
        ),
        "int16",
    ),
    "activations alone": (
        in_floats_but_for(*pair("x", "a"), node("MatMul", ["a", "W"], ["y"])),
        "float32, values rounded to int8",
    ),
    "the output alone": (
        in_floats_but_for(node("MatMul", ["x", "W"], ["p"]), *pair("p", "y")),
        "float32, values rounded to int8",
    ),
    "a dead part": (
        in_floats_but_for(
            *pair("x", "a"),
            node("DequantizeLinear", ["w", "s"], ["b"]),
            node("MatMul", ["a", "b"], ["d"]),
            node("MatMul", ["x", "W"], ["y"]),
        ),
        "float32",
    ),
    "a grid that is left before the layer": (
        in_floats_but_for(
            *pair("x", "a"),
            node("Sigmoid", ["a"], ["t"]),
            node("DequantizeLinear", ["w", "s"], ["b"]),
            node("MatMul", ["t", "b"], ["y"]),
        ),
        "float32 with int8 weights",
    ),
    "a small part": (
        in_floats_but_for(
            node("MatMul", ["x", "large"], ["l"]),
            *pair("l", "a"),
            node("DequantizeLinear", ["w", "s"], ["b"]),
            node("MatMul", ["a", "b"], ["y"]),
            stored={"large": np.ones((8, 8), np.float32).repeat(2, 1)[:, :9]},
        ),
        "float32, partly int8",
    ),
    "integers": (
        graph(
            [
                node("DynamicQuantizeLinear", ["x"], ["q", "t", "u"]),
                node("MatMulInteger", ["q", "w", "u"], ["i"]),
                node("Cast", ["i"], ["y"], to=1),
            ],
            {"w": np.eye(8, dtype=np.int8)},
        ),
        "int8",
    ),
    "integers without pairs": (
        graph(
            [
                node("QuantizeLinear", ["x", "s", "z"], ["q"]),
                node("QLinearMatMul", ["q", "s", "z", "w", "s", "z", "s", "z"], ["r"]),
                node("QLinearMatMul", ["r", "s", "z", "w", "s", "z", "s", "z"], ["p"]),
                node("DequantizeLinear", ["p", "s", "z"], ["y"]),
            ],
            {**SCALE, "z": np.array(0, np.int8), "w": np.eye(8, dtype=np.int8)},
        ),
        "int8",
    ),
    "no layer": (
        graph([node("Add", ["x", "c"], ["y"])], {"c": np.ones(8, np.float32), "k": np.ones(99, np.int64)}),
        "float32",
    ),
    "rounded by its own range alone": (
        graph(
            [
                node("DynamicQuantizeLinear", ["x"], ["q", "t", "u"]),
                node("DequantizeLinear", ["q", "t", "u"], ["r"]),
                node("Add", ["r", "c"], ["y"]),
            ],
            {"c": np.ones(8, np.float32)},
        ),
        "float32, values rounded to int8",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_precision_is_read_off_the_graph(name: str) -> None:
    proto, precision = CASES[name]
    assert precision_of(proto).name == precision


def test_what_one_name_does_not_tell_is_told() -> None:
    assert precision_of(CASES["int8"][0]).wording == ""
    told = precision_of(CASES["a small part"][0]).wording
    assert told == "float32, partly int8: of its layers with weights 1 compute in float32, 1 compute in int8"
    assert precision_of(CASES["a dead part"][0]).wording == ""
