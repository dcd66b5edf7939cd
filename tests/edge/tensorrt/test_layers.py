"""What an engine executes, read from the three descriptions that there are of it.

TENSORRT_10 has the shape that the TensorRT 10 developer guide documents for `IEngineInspector` with detailed profiling
verbosity (`Layers` with `Format/Datatype`, `Weights`, `Bindings` as names), TENSORRT_11 that of the guide to migrate
from 10 to 11 (`Format/Datatype` split into `Datatype` and `Format`, `I/O Tensors` for `Bindings`), in both with layers
written for this test: no engine can be inspected without a GPU. LISTING is a line as TensorRT-RTX 1.7 wrote it.
"""

import json

import pytest

from edge.runtimes.tensorrt import layers

VECTORISED = "Thirty-two wide channel vectorized row major Int8 format"


def _ten(name: str, kind: str, into: str, out: str, **more: object) -> dict[str, object]:
    inputs = [{"Name": "x", "Location": "Device", "Dimensions": [1, 64, 8, 8], "Format/Datatype": into}]
    outputs = [{"Name": "y", "Location": "Device", "Dimensions": [1, 64, 8, 8], "Format/Datatype": out}]
    return {"Name": name, "LayerType": kind, "Inputs": inputs, "Outputs": outputs, "TacticName": "t", **more}


TENSORRT_10 = json.dumps(
    {
        "Layers": [
            _ten("image_quantize", "Reformat", "Row major linear FP32", VECTORISED, ParameterType="Reformat"),
            _ten(
                "conv1 + relu1",
                "CaskConvolution",
                VECTORISED,
                VECTORISED,
                ParameterType="Convolution",
                Weights={"Type": "Int8", "Count": 432},
                Bias={"Type": "Float", "Count": 16},
                Metadata="[ONNX Layer: conv1]\x1e[ONNX Layer: relu1]",
            ),
            _ten(
                "conv2",
                "CaskConvolution",
                "Channel major FP16 format where channel % 8 == 0",
                "Channel major FP16 format where channel % 8 == 0",
                Weights={"Type": "Half", "Count": 2304},
            ),
            _ten("PWN(add)", "PointWise", "Row major linear FP16 format", "Row major linear FP16 format"),
        ],
        "Bindings": ["image", "logits"],
    }
)

TENSORRT_11 = json.dumps(
    {
        "Layers": [
            {
                "Name": "conv1_myl0_2",
                "LayerType": "correlation",
                "Inputs": [{"Name": "x", "Dimensions": [-1, 4, 8, 8], "Datatype": "Int8", "Format": "(NHWC)"}],
                "Constants": [
                    {"Name": "w", "Dimensions": [64, 4, 3, 3], "Datatype": "Int8", "Format": "(NHWC)"},
                    {"Name": "s", "Dimensions": [1, 64, 1, 1], "Datatype": "Float", "Format": "(NHWC)"},
                ],
                "Outputs": [{"Name": "y", "Dimensions": [-1, 64, 8, 8], "Datatype": "Half", "Format": "(NHWC)"}],
                "TacticName": "t",
                "Metadata": "[ONNX Layer: conv1]\x1f[ONNX Layer: conv1.weight_dequantize]",
            },
            {
                "Name": "__myl_FcAdd",
                "LayerType": "gemm",
                "Inputs": [{"Name": "g", "Dimensions": [-1, 64], "Datatype": "BFloat16", "Format": "(Linear)"}],
                "Constants": [{"Name": "w", "Dimensions": [64, 10], "Datatype": "BFloat16", "Format": "(Linear)"}],
                "Outputs": [{"Name": "logits", "Dimensions": [-1, 10], "Datatype": "Float", "Format": "(Linear)"}],
                "Metadata": "[ONNX Layer: fc]",
            },
        ],
        "I/O Tensors": [{"Name": "image", "IOMode": "Input", "DataType": "Float", "Dimensions": [-1, 3, 8, 8]}],
    }
)

LISTING = (
    "Layers:\nName: conv1_myl0_2, LayerType: correlation, Inputs: [ { Name: a.1_7, Dimensions: [-1,4,32,32], Strides: "
    "[4096,1,128,4], StrideOrder: [3,0,2,1], Datatype: Int8, Format: (NHWC) Channel major format }], Constants: [ { "
    "Name: __mye2700_dconst, Dimensions: [64,4,3,3], Strides: [36,1,12,4], StrideOrder: [3,0,2,1], Datatype: Int8, "
    "Format: (NHWC) Channel major format }, { Name: __mye1525, Dimensions: [1,64,1,1], Strides: [64,1,64,64], "
    "StrideOrder: [3,0,2,1], Datatype: Float, Format: (NHWC) Channel major format }], Outputs: [ { Name: k_8, "
    "Dimensions: [-1,64,32,32], Strides: [65536,1,2048,64], StrideOrder: [3,0,2,1], Datatype: Float, Format: (NHWC) "
    "Channel major format }], TacticName: __myelin_CASK_STUB, StreamId: 0, Metadata: [ONNX Layer: conv1]\x1f"
    "[ONNX Layer: x_dequantize]\n"
    "Name: __mye351_0, LayerType: shape_call, Inputs: [], Constants: [], Outputs: [], TacticName: , StreamId: 0, "
    "Metadata: \n\nI/O Tensors:\n Name: image, IOMode: Input, DataType: Float\n"
)


def test_of_tensorrt_10() -> None:
    rows = layers.of_inspector(TENSORRT_10)
    assert [(row["precision"], row["weighted"], row["nodes"]) for row in rows] == [
        ("float32→int8", False, ["image_quantize"]),
        ("int8", True, ["conv1", "relu1"]),
        ("fp16", True, ["conv2"]),
        ("fp16", False, ["PWN(add)"]),
    ]
    found = layers.layer_report(rows, weighted=("conv1", "conv2", "fc"), int8=("conv1", "conv2"))
    assert found["weighted"] == {"conv1": "int8", "conv2": "fp16"} and found["unseen"] == ["fc"]
    assert found["precisions"] == {"fp16": 1, "int8": 1} and found["not_int8"] == ["conv2"]
    assert found["apart"] == ["image_quantize", "PWN(add)"]
    assert layers.layer_lines(found, ("conv1", "conv2")) == [
        "layers with weights: 1 fp16, 1 int8; 2 layers stand apart, unfused",
        "1 of 2 nodes meant for INT8 execute otherwise: conv2 (fp16)",
        "1 nodes with weights are named by no layer: fc",
    ]


def test_of_tensorrt_11() -> None:
    rows = layers.of_inspector(TENSORRT_11)
    found = layers.layer_report(rows, weighted=("conv1", "fc"), int8=("conv1",))
    assert found["weighted"] == {"conv1": "int8", "fc": "bf16"} and found["not_int8"] == [] == found["apart"]


def test_of_the_builders_listing() -> None:
    conv, shape = layers.of_listing(LISTING)
    assert (conv["name"], conv["type"], conv["precision"], conv["weighted"]) == (
        "conv1_myl0_2",
        "correlation",
        "int8",
        True,
    )
    assert conv["nodes"] == ["conv1", "x_dequantize"] and conv["outputs"] == [{"name": "k_8", "type": "float32"}]
    assert not shape["weighted"] and layers.layer_report([conv, shape], weighted=(), int8=())["apart"] == []


def test_weights_of_another_type_than_what_they_multiply_are_told() -> None:
    layer = _ten("fc", "CaskGemm", "Row major linear FP16 format", "Half", Weights={"Type": "Int8"})
    (row,) = layers.of_inspector(json.dumps({"Layers": [layer]}))
    assert row["precision"] == "fp16×int8"
    assert layers.layer_report([row], weighted=("fc",), int8=("fc",))["not_int8"] == ["fc"]


def test_a_layer_that_only_weights_come_into_executes_nothing_in_their_type() -> None:
    """As TensorRT-RTX dequantizes an attention's weights before it multiplies by them in FP16."""
    layer = _ten("qkv", "kgen", "Row major linear FP16 format", "Half", Weights={"Type": "Int8"}) | {"Inputs": []}
    (row,) = layers.of_inspector(json.dumps({"Layers": [layer]}))
    assert row["precision"] == "int8→fp16"
    assert layers.layer_report([row], weighted=("qkv",), int8=("qkv",))["not_int8"] == ["qkv"]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Row major linear FP32", "float32"),
        ("Float", "float32"),
        ("Half", "fp16"),
        ("Channel major FP16 format where channel % 4 == 0", "fp16"),
        ("BFloat16", "bf16"),
        ("Four wide channel vectorized row major Int8 format", "int8"),
        ("Int32", "int32"),
        ("Bool", "bool"),
        ("FP8", "fp8"),
        ("Unknown", "other"),
    ],
)
def test_types_have_our_names(text: str, name: str) -> None:
    assert layers.kind(text) == name


@pytest.mark.parametrize("text", ["", "no JSON", '{"Layers": []}', '{"Layers": ["a name alone"]}', "[]"])
def test_what_tells_nothing_gives_no_rows(text: str) -> None:
    """With another verbosity the inspector names layers only."""
    assert layers.of_inspector(text) == [] == layers.of_listing(text)
