"""An ONNX graph layer by layer: what each stores, in which type, what the graph quantizes, and what executes it.

What executes a layer is read off the graph that ONNX Runtime optimised for itself. Nothing here imports torch.
"""

import math
import statistics
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from compress.networks.graph.dataflow import DataFlow, flattened, standard_opset
from edge.core.errors import CompressError
from export.targets.onnx.precision import level_type

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
#: Operator of an optimised graph that multiplies by weights → which input holds them: in integers, and in floats.
INTEGER_WEIGHTS = {
    "QLinearConv": 3,
    "QGemm": 3,
    "QLinearMatMul": 3,
    "ConvInteger": 1,
    "MatMulInteger": 1,
    "MatMulIntegerToFloat": 1,
}
FLOAT_WEIGHTS = {"Conv": 1, "FusedConv": 1, "Gemm": 1, "MatMul": 1, "FusedMatMul": 1, "FusedGemm": 1}
#: Operators that a weight passes on its way into a layer without being computed with.
PASSED = ("DequantizeLinear", "Cast", "Transpose", "Reshape", "Identity")
ROUNDED = (*PASSED, "QuantizeLinear")
#: Operators that multiply by weights in a graph as it was written → the input that holds them.
WEIGHTS = {
    "Conv": 1,
    "ConvTranspose": 1,
    "Gemm": 1,
    "MatMul": 1,
    "ConvInteger": 1,
    "MatMulInteger": 1,
    "QLinearConv": 3,
    "QLinearMatMul": 3,
}
SUMS = ("Add", "Sum", "QLinearAdd")
#: Types of zero points, and so of the levels around them.
SIGNED = (TensorProto.INT4, TensorProto.INT8, TensorProto.INT16, TensorProto.INT32)
UNSIGNED = (TensorProto.UINT4, TensorProto.UINT8, TensorProto.UINT16)
WEIGHT_LEVELS = {*SIGNED, *UNSIGNED} - {TensorProto.INT32}
FLOAT_TYPES = ("float32", "float16", "bfloat16", "float64")
#: Bits of a value, where two or four of them share a byte; not every onnx knows all of these types.
PACKED = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}
SHORT = {"float": "float32", "double": "float64"}

FATAL = 4  # the runtime's log level


@dataclass(frozen=True)
class ExecutedLayers:
    """Names of torch modules that multiply by weights, by what they are executed in."""

    integer: list[str]
    floating: list[str]


def executed_layers(content: bytes) -> ExecutedLayers:
    """Which layers of an INT8 file that this package wrote ONNX Runtime executes in integers, and which not."""
    as_executed = optimised(content)
    assert as_executed is not None, "parity has executed it"

    def modules(places: Mapping[str, int]) -> list[str]:
        """Weights bear their module's name in our files; a product of two computed tensors has none."""
        weights = [node.input[places[node.op_type]] for node in as_executed.graph.node if node.op_type in places]
        # a layer that is called on several grids has as many weights
        return list(dict.fromkeys(name.partition(".weight")[0] for name in weights if ".weight" in name))

    return ExecutedLayers(modules(INTEGER_WEIGHTS), modules(FLOAT_WEIGHTS))


def optimised(content: bytes) -> "onnx.ModelProto | None":
    """The graph as ONNX Runtime lays it out for this processor; None where it opens none of this kind here.

    One level below its last, which renames weights for their blocked layout and changes no arithmetic.
    """
    try:
        import onnxruntime
    except ImportError:
        raise CompressError(
            "onnxruntime is not installed, it says how a layer executes; pip install onnxruntime"
        ) from None
    onnxruntime.disable_telemetry_events()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimised.onnx"
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(path)
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.intra_op_num_threads = 1
        options.log_severity_level = FATAL
        try:
            onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception:  # the runtime's exceptions share no base class
            return None
        return onnx.load(path)


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


class GraphTensors(DataFlow):
    """The tensors and nodes of a model, by name; constants may stand as initializers or as nodes."""

    def path(self, tensor: str) -> list[str]:
        """Names from a layer's input back to the constant behind it; [] where a computed tensor stands there."""
        names = [tensor]
        while names[-1] not in self.stored:
            node = self.maker.get(names[-1])
            if node is None or node.op_type not in ROUNDED:
                return []
            names.append(node.input[0])
        return names

    def constants(self, tensor: str) -> set[str]:
        """Every constant that a layer's weight input needs: the levels, their scales and zero points."""
        node = self.maker.get(tensor)
        if tensor in self.stored:
            return {tensor}
        return set().union(*map(self.constants, node.input)) if node and node.op_type in ROUNDED else set()

    def levels(self, path: Sequence[str]) -> "str | None":
        """The type of a weight's levels where the graph itself rounds it, after it was stored as a float."""
        makers = [self.maker[name] for name in path if name in self.maker]
        kind = next((level_type(self, node) for node in makers if node.op_type == "QuantizeLinear"), None)
        return None if kind is None else TensorProto.DataType.Name(kind).lower()

    def bytes(self, names: "set[str]") -> int:
        return sum(tensor_bytes(self.stored[name]) for name in names)


def describe_graph(proto: onnx.ModelProto, optimised: "onnx.ModelProto | None") -> dict[str, Any]:
    """Opset, IR version, operators, stored types, layers and quantization, JSON types.

    `optimised`: the graph as the runtime executes it; without it a layer's `execution` is null.
    """
    graph = GraphTensors(flattened(proto))
    rows = graph_layers(graph, None if optimised is None else Executed(optimised))
    held: Counter[str] = Counter()
    for entry in graph.stored.values():
        held[dtype(entry)] += tensor_bytes(entry)
    return {
        "opset": standard_opset(proto) or None,
        "ir_version": proto.ir_version,
        "producer": f"{proto.producer_name} {proto.producer_version}".strip(),
        "operators": dict(Counter(node.op_type for node in graph.nodes).most_common()),
        "stored_bytes": dict(held.most_common()),
        "layers": rows,
        "quantization": quantization(graph, rows),
    }


def graph_layers(graph: GraphTensors, executed: "Executed | None") -> list[dict[str, Any]]:
    """Layers with weights and sums of two computed tensors, in the graph's order.

    {"name", "node", "op", "weight": shape or null, "stored": type or null, "rounded": to levels of that type in the
    graph, or null, "parameters", "bytes", "executed_by", "execution": integer, float, unknown or null}. Bytes hold the
    bias, scales and zero points too.
    """
    rows = []
    counted: set[str] = set()
    for node in graph.nodes:
        path = graph.path(node.input[WEIGHTS[node.op_type]]) if node.op_type in WEIGHTS else []
        computed = [name for name in node.input if name and not graph.path(name)]
        if not path and not (node.op_type in SUMS and len(computed) > 1):
            continue
        # the torch module where the weight is called after it, else the node's own name
        module, is_weight, _ = path[-1].partition(".weight") if path else ("", "", "")
        own = set().union(*map(graph.constants, node.input[1:])) - counted if path else set()
        counted |= own
        weight = graph.stored[path[-1]] if path else None
        operator = executed.operator(node, reversed(path)) if executed else None
        execution = "integer" if operator in INTEGER else "float"
        if operator is None:  # merged into something without a trace
            execution = "unknown"
        rows.append(
            {
                "name": module if is_weight else node.name or (path[-1] if path else node.output[0]),
                "node": node.name,
                "op": node.op_type,
                "weight": None if weight is None else list(weight.dims),
                "stored": None if weight is None else dtype(weight),
                "rounded": graph.levels(path),
                "parameters": 0 if weight is None else math.prod(weight.dims),
                "bytes": graph.bytes(own),
                "executed_by": operator,
                "execution": execution if executed else None,
            }
        )
    return rows


def quantization(graph: GraphTensors, rows: Sequence[Mapping[str, Any]]) -> "dict[str, Any] | None":
    """What the Q/DQ pairs hold; None of a graph without any.

    `pairs` of activations with how many are signed and unsigned, their zero points and scales; `weights`: how many are
    stored in which type, and the scales (those of int32 biases left out); `left_float`: layers of float weights.
    """
    rounding = [node for node in graph.nodes if node.op_type == "QuantizeLinear"]
    quantize = [node for node in rounding if not graph.path(node.input[0])]  # of activations
    stored = [node for node in graph.nodes if node.op_type == "DequantizeLinear" and node.input[0] in graph.stored]
    if not rounding and not stored:
        return None
    zero_points: Counter[str] = Counter()
    types = []
    for node in quantize:
        name = node.input[2] if len(node.input) > 2 else ""
        value = graph.array(name)  # None, where none is given, stands for 0
        levels = np.zeros(1, np.uint8) if value is None else value.reshape(-1)
        types.append(level_type(graph, node))
        zero_points[str(int(levels[0])) if (levels == levels[0]).all() else "varies"] += 1  # from channel to channel
    kinds = Counter(dtype(graph.stored[node.input[0]]) for node in stored)
    kinds.update(row["rounded"] for row in rows if row["rounded"])
    weights = [node for node in stored if graph.stored[node.input[0]].data_type in WEIGHT_LEVELS]
    return {
        "pairs": len(quantize),
        "signed": sum(kind in SIGNED for kind in types),
        "unsigned": sum(kind in UNSIGNED for kind in types),
        "zero_points": dict(sorted(zero_points.items())),
        "scales": spread([value for node in quantize for value in _scales(graph, node)]),
        "weights": dict(kinds.most_common()),
        "weight_scales": spread([value for node in weights for value in _scales(graph, node)]),
        "left_float": [
            row["name"] for row in rows if row["weight"] and row["stored"] in FLOAT_TYPES and not row["rounded"]
        ],
    }


def dtype(entry: onnx.TensorProto) -> str:
    name = onnx.TensorProto.DataType.Name(entry.data_type).lower()
    return SHORT.get(name, name)


def tensor_bytes(entry: onnx.TensorProto) -> int:
    """Bytes that the values take by their shape and type, as a file packs them."""
    count, bits = math.prod(entry.dims), PACKED.get(TensorProto.DataType.Name(entry.data_type))
    if bits is not None:
        return math.ceil(count * bits / 8)
    return count * int(onnx.helper.tensor_dtype_to_np_dtype(entry.data_type).itemsize)


def _scales(graph: GraphTensors, node: onnx.NodeProto) -> list[float]:
    value = graph.array(node.input[1])
    return [] if value is None else [float(scale) for scale in value.astype(np.float64).reshape(-1)]


def spread(values: Sequence[float]) -> "dict[str, float] | None":
    """Least, median and largest; None of nothing."""
    if not values:
        return None
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}
