"""Writes the network that boards test themselves with: `python -m export.reference_network edge/board/network.onnx`.

The graph of `edge.board.selftesting`, in the layout that TensorRT's parser accepts and ONNX Runtime executes too.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge.board import selftesting

OPSET, IR_VERSION = 17, 8  # old enough for every runtime that a board may have


def reference_network() -> bytes:
    """The file's bytes."""
    graph = _Graph()
    image = graph.on_grid("image", "image")
    first = graph.on_grid(graph.node("Relu", graph.convolution(image, "first")), "first")
    added = graph.node("Add", graph.convolution(first, "second"), first)
    second = graph.on_grid(graph.node("Relu", added), "second")
    mean = graph.on_grid(graph.node("Flatten", graph.node("GlobalAveragePool", second)), "mean")
    _, _, bias = selftesting.reference_weights("last")
    last = graph.node("Gemm", mean, graph.weight("last"), graph.constant("last.bias", bias), transB=1)
    return graph.bytes(last)


class _Graph:
    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"{kind.lower()}{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def constant(self, name: str, value: Any) -> str:
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def on_grid(self, value: str, scale: str) -> str:
        step = self.constant(f"{scale}.scale", np.float32(selftesting.SCALES[scale]))
        zero = self.constant(f"{scale}.zero", np.int8(0))
        return self.node("DequantizeLinear", self.node("QuantizeLinear", value, step, zero), step, zero)

    def weight(self, name: str) -> str:
        kernel, scale, _ = selftesting.reference_weights(name)
        zero = self.constant(f"{name}.zeros", np.zeros(len(scale), np.int8))
        steps = self.constant(f"{name}.scales", scale)
        return self.node("DequantizeLinear", self.constant(f"{name}.weight", kernel), steps, zero, axis=0)

    def convolution(self, value: str, name: str) -> str:
        _, _, bias = selftesting.reference_weights(name)
        return self.node("Conv", value, self.weight(name), self.constant(f"{name}.bias", bias), pads=[1, 1, 1, 1])

    def bytes(self, output: str) -> bytes:
        """The model, its last value called `logits`."""
        self._nodes[-1].output[0] = "logits"
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", *selftesting.INPUT_SHAPE])
        logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", selftesting.CLASSES])
        graph = helper.make_graph(self._nodes, "reference", [image], [logits], self._constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        model.producer_name = "robust-compress"
        onnx.checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString())


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(reference_network())
