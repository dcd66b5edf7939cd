"""Small classifiers as ONNX graphs: a residual block in float32, FP16 with casts around, and INT8 with Q/DQ."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CONVS = ("conv1", "conv2", "fc")
CLASSES = 10


def graph(kind: str, *, size: int = 8, channels: int = 16, batch: "int | None" = None, opset: int = 20) -> bytes:
    """`kind` float32, fp16 or int8. Image (batch,3,size,size) in, logits (batch,10) out; nodes conv1, conv2, fc."""
    return _Builder(kind).model(size, channels, batch, opset).SerializeToString()


def unsupported() -> bytes:
    """A graph with one operator that no runtime has, node `strange`."""
    node = helper.make_node("NoSuchOperator", ["image"], ["logits"], "strange")
    sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3, 8, 8]) for name in ("image", "logits")]
    made = helper.make_graph([node], "g", sides[:1], sides[1:])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()


class _Builder:
    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.random = np.random.default_rng(0)
        self.float = np.float16 if kind == "fp16" else np.float32

    def model(self, size: int, channels: int, batch: "int | None", opset: int) -> onnx.ModelProto:
        x = "image"
        if self.kind == "fp16":
            x = self.node("Cast", [x], "image_half", "to_half", to=TensorProto.FLOAT16)
        x = self.node("Relu", [self.conv(self.quantized(x), "conv1", (channels, 3, 3, 3))], "r1", "relu1")
        shortcut = self.quantized(x)
        x = self.node("Add", [self.conv(shortcut, "conv2", (channels, channels, 3, 3)), shortcut], "sum", "add")
        x = self.quantized(self.node("Relu", [x], "r2", "relu2"))
        x = self.node("Flatten", [self.node("GlobalAveragePool", [x], "mean", "pool")], "flat", "flatten")
        weight, bias = self.weight("fc.weight", (CLASSES, channels)), self.zeros("fc.bias", CLASSES)
        last = "logits" if self.kind != "fp16" else "logits_half"
        x = self.node("Gemm", [self.quantized(x), weight, bias], last, "fc", transB=1)
        if self.kind == "fp16":
            self.node("Cast", [x], "logits", "to_float", to=TensorProto.FLOAT)
        sides = (("image", [3, size, size]), ("logits", [CLASSES]))
        image, logits = (
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch or "batch", *rest]) for name, rest in sides
        )
        made = helper.make_graph(self.nodes, "classifier", [image], [logits], self.constants)
        return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)

    def node(self, kind: str, inputs: list[str], output: str, name: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name, **attributes))
        return output

    def constant(self, name: str, value: np.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def zeros(self, name: str, count: int) -> str:
        return self.constant(name, np.zeros(count, self.float))

    def conv(self, x: str, name: str, shape: tuple[int, ...]) -> str:
        inputs = [x, self.weight(f"{name}.weight", shape), self.zeros(f"{name}.bias", shape[0])]
        return self.node("Conv", inputs, f"{name}_out", name, pads=[1] * 4)

    def quantized(self, x: str) -> str:
        if self.kind != "int8":
            return x
        grid = [
            self.constant(f"{x}_scale", np.array(0.05, np.float32)),
            self.constant(f"{x}_zero", np.array(0, np.int8)),
        ]
        stored = self.node("QuantizeLinear", [x, *grid], f"{x}_q", f"{x}_quantize")
        return self.node("DequantizeLinear", [stored, *grid], f"{x}_dq", f"{x}_dequantize")

    def weight(self, name: str, shape: tuple[int, ...]) -> str:
        value = self.random.normal(size=shape).astype(np.float32) * 0.1
        if self.kind != "int8":
            return self.constant(name, value.astype(self.float))
        scale = np.abs(value).reshape(shape[0], -1).max(1) / 127
        levels = np.rint(value / scale.reshape(-1, *[1] * (value.ndim - 1))).astype(np.int8)
        inputs = [
            self.constant(f"{name}_int8", levels),
            self.constant(f"{name}_scale", scale.astype(np.float32)),
            self.constant(f"{name}_zero", np.zeros(shape[0], np.int8)),
        ]
        return self.node("DequantizeLinear", inputs, f"{name}_dq", f"{name}_dequantize", axis=0)
