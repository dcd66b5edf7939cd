"""How ONNX Runtime really executes a graph on the processor: read off the graph that it optimised for itself."""

from collections.abc import Iterable

import onnx

#: Operators that compute on 8-bit integers; everything else computes on floats.
INTEGER = frozenset(
    {
        "ConvInteger",
        "DynamicQuantizeMatMul",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "QGemm",
        "QLinearAdd",
        "QLinearAveragePool",
        "QLinearConcat",
        "QLinearConv",
        "QLinearGlobalAveragePool",
        "QLinearLeakyRelu",
        "QLinearMatMul",
        "QLinearMul",
        "QLinearReduceMean",
        "QLinearSigmoid",
    }
)
#: Operators that a weight passes on its way into a layer without being computed with.
PASSED = ("DequantizeLinear", "Cast", "Transpose", "Reshape", "Identity")


class Executed:
    """Which node of an optimised graph a node of the original one became."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self._by_name = {node.name: node for node in proto.graph.node}
        self._by_input: dict[str, onnx.NodeProto] = {}
        self._by_output: dict[str, onnx.NodeProto] = {}
        for node in proto.graph.node:
            for name in node.input:
                self._by_input.setdefault(name, node)
            for name in node.output:
                self._by_output[name] = node

    def operator(self, node: onnx.NodeProto, weights: Iterable[str]) -> "str | None":
        """The operator that computes with one of `weights`, else the node of its name or output; None of neither."""
        reads = (self._by_input[name] for name in weights if name in self._by_input)
        executing = next(reads, None) or self._by_name.get(node.name) or self._by_output.get(node.output[0])
        while executing is not None and executing.op_type in PASSED:
            executing = self._by_input.get(executing.output[0])
        return str(executing.op_type) if executing is not None else None


def arithmetic(operator: "str | None") -> str:
    """`integer`, `float`, or `unknown` for a node that was merged into something without a trace."""
    return "unknown" if operator is None else "integer" if operator in INTEGER else "float"
