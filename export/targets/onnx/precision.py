"""What a graph computes in, by the types and quantizers along the way into each layer with weights.

A quantizer decides nothing where no output depends on it, or where no layer multiplies what it rounds. Nothing here
imports torch.
"""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import onnx
from onnx import TensorProto

from compress.networks.graph.dataflow import MOVES, DataFlow, attributes_of, flattened

FLOATS = {
    TensorProto.FLOAT: "float32",
    TensorProto.FLOAT16: "fp16",
    TensorProto.BFLOAT16: "bf16",
    TensorProto.DOUBLE: "float64",
}
#: Types of quantized levels, by the first letters of their names.
LEVELS = {"INT": "int", "UINT": "int", "FLOAT8": "fp8", "FLOAT4": "fp4", "FLOAT6": "fp6"}
#: Operator that multiplies by weights → places of what it multiplies: both may hold the weights.
FACTORS = {
    "Conv": (0, 1),
    "ConvTranspose": (0, 1),
    "Gemm": (0, 1),
    "MatMul": (0, 1),
    "FusedConv": (0, 1),
    "FusedGemm": (0, 1),
    "FusedMatMul": (0, 1),
    "NhwcConv": (0, 1),
    "ConvInteger": (0, 1),
    "MatMulInteger": (0, 1),
    "DynamicQuantizeMatMul": (0, 1),
    "MatMulIntegerToFloat": (0, 1),
    "QLinearConv": (0, 3),
    "QLinearMatMul": (0, 3),
    "QGemm": (0, 3),
}
#: Of these, those that quantize what they read on their own, to uint8.
DYNAMIC = ("DynamicQuantizeMatMul",)
QUANTIZES = ("QuantizeLinear", "DynamicQuantizeLinear")
BY_HAND = ("Mul", "Sub", "Add", "Div")  # of levels with their scale, where no DequantizeLinear does it
#: Operators behind which values are still those of the grid that they were rounded to.
GRID = MOVES | {"Identity", "Relu", "MaxPool", "Clip", "Pad", "Dropout", "GlobalMaxPool"}


@dataclass(frozen=True)
class LayerArithmetic:
    """A layer's parameters, and the types of its weights and of what it multiplies them with; None: a float."""

    parameters: int
    floats: str
    weights: "str | None"
    activations: "str | None"

    @property
    def precision(self) -> str:
        if self.weights is None:
            return self.floats
        if self.activations is None:
            return f"{self.floats} with {self.weights} weights"
        return (
            self.weights
            if self.weights == self.activations
            else f"{self.weights} weights, {self.activations} activations"
        )


@dataclass(frozen=True)
class GraphPrecision:
    """`name` for statements; `layers`: how many layers with weights compute in what."""

    name: str
    layers: Counter[str]

    @property
    def wording(self) -> str:
        """What one name does not tell; "" where it tells all."""
        if set(self.layers) <= {self.name}:
            return ""
        return f"{self.name}: of its layers with weights " + ", ".join(
            f"{n} compute in {kind}" for kind, n in self.layers.most_common()
        )


def precision_of(proto: onnx.ModelProto) -> GraphPrecision:
    """`name` is what the layers that hold most of the parameters compute in.

    `int8`, `int16`, `int4`, `fp8` where weights and activations are quantized to it; `float32 with int8 weights` where
    the weights alone are; a float type otherwise: `float32, partly int8` where fewer layers are quantized, `float32,
    values rounded to int8` where quantizers stand before the output, and no layer multiplies their levels.
    """
    flow = DataFlow(flattened(proto))
    layers = list(_layers(flow))
    sizes: Counter[str] = Counter()
    for layer in layers:
        sizes[layer.precision] += layer.parameters
    name = sizes.most_common(1)[0][0] if sizes else _of_most_constants(flow)
    if name in FLOATS.values():
        lesser = next((kind for kind, _ in sizes.most_common() if kind not in FLOATS.values()), None)
        grids = Counter(_named(level_type(flow, node)) for node in flow.live() if node.op_type in QUANTIZES)
        if lesser is not None:
            name = f"{name}, partly {lesser}"
        elif grids:
            name = f"{name}, values rounded to {grids.most_common(1)[0][0]}"
    return GraphPrecision(name, Counter(layer.precision for layer in layers))


def _layers(flow: DataFlow) -> Iterator[LayerArithmetic]:
    """Those that an output depends on."""
    for node in flow.live():
        if node.op_type == "MatMulNBits":  # com.microsoft: weights alone, in blocks
            given = attributes_of(node)
            floats = FLOATS.get(_type_of(flow, node.input[2]), "float32")
            yield LayerArithmetic(given["K"] * given["N"], floats, f"int{given.get('bits', 4)}", None)
        if node.op_type not in FACTORS:
            continue
        names = [node.input[place] for place in FACTORS[node.op_type]]
        stored = [_constant_behind(flow, name) for name in names]
        if not any(stored):
            continue
        weights = 1 if stored[1] else 0
        levels = [_levels(flow, name) for name in names]
        if node.op_type in DYNAMIC:
            levels[0] = "int8"
        yield LayerArithmetic(
            math.prod(flow.stored[stored[weights]].dims),
            _floats(flow, node, names[weights]),
            levels[weights],
            levels[1 - weights],
        )


def _constant_behind(flow: DataFlow, name: str) -> str:
    """The constant that a tensor is made of; "" where it is computed from the image."""
    source = flow.through(name)
    node = flow.maker.get(source)
    if source in flow.stored or node is None or node.op_type not in BY_HAND:
        return source if source in flow.stored else ""
    parts = [_constant_behind(flow, part) for part in node.input]
    return max(parts, key=lambda part: math.prod(flow.stored[part].dims)) if all(parts) else ""


def level_type(flow: DataFlow, node: onnx.NodeProto) -> int:
    """The element type of what a QuantizeLinear gives: its zero point's, else `output_dtype`, else uint8."""
    zero = node.input[2] if len(node.input) > 2 else ""
    stated = attributes_of(node).get("output_dtype", 0)
    return int((zero and _type_of(flow, zero)) or stated or TensorProto.UINT8)


def _levels(flow: DataFlow, name: str) -> "str | None":
    """The grid that a tensor's values were rounded to last, by its name; None where they are floats."""
    kind = _type_of(flow, name)
    if kind and kind not in FLOATS:
        return _named(kind)
    node = flow.maker.get(name)
    while node is not None and node.op_type != "DequantizeLinear":
        if node.op_type not in GRID and not (node.op_type == "Cast" and _to_float(node)):
            return None
        name = node.input[0]
        node = flow.maker.get(name)
    return None if node is None else _named(_type_of(flow, node.input[0]))


def _to_float(node: onnx.NodeProto) -> bool:
    """Whether a Cast is to a float type."""
    return attributes_of(node).get("to") in FLOATS


def _type_of(flow: DataFlow, name: str) -> int:
    """The element type of a tensor; 0 where it is a float or does not follow from constants and quantizers."""
    while True:
        if name in flow.stored:
            return int(flow.stored[name].data_type)
        node = flow.maker.get(name)
        if node is None:
            return 0
        if node.op_type == "QuantizeLinear":
            return level_type(flow, node)
        if node.op_type == "DynamicQuantizeLinear":
            return int(TensorProto.UINT8)
        if node.op_type == "Cast":
            return int(attributes_of(node)["to"])
        if node.op_type in ("QLinearConv", "QGemm", "QLinearMatMul"):
            zero = {"QLinearConv": 7, "QLinearMatMul": 7, "QGemm": 8}[node.op_type]
            return _type_of(flow, node.input[zero]) if len(node.input) > zero else 0
        if node.op_type.startswith("QLinear") or node.op_type in GRID:
            name = node.input[0]
            continue
        return 0


def _named(kind: int) -> "str | None":
    """`int8` of INT8 and UINT8, `fp8` of each of the 8-bit floats."""
    name = TensorProto.DataType.Name(kind)
    family = next((short for start, short in LEVELS.items() if name.startswith(start)), None)
    return f"int{name.lstrip('UINT')}" if family == "int" else family


def _floats(flow: DataFlow, node: onnx.NodeProto, weights: str) -> str:
    """The float type that a layer multiplies in, or that its levels stand for."""
    name = weights
    while (maker := flow.maker.get(name)) is not None and name not in flow.stored:
        if maker.op_type == "DequantizeLinear":
            return FLOATS.get(_type_of(flow, maker.input[1]), "float32")
        if maker.op_type == "Cast" or not maker.input:
            break
        name = maker.input[0]
    return FLOATS.get(_type_of(flow, name), "float32")


def _of_most_constants(flow: DataFlow) -> str:
    """Of a graph without a layer: the float type that most of its constants have."""
    sizes: Counter[int] = Counter()
    for entry in flow.stored.values():
        sizes[entry.data_type] += math.prod(entry.dims)
    return next((FLOATS[kind] for kind, _ in sizes.most_common() if kind in FLOATS), "float32")
