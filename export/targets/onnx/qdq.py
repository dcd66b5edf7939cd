"""Q/DQ pairs for INT8, in the dialect of the runtime that reads them (`compress.quantization.grids`)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from compress.networks.base import Classifier
from compress.networks.graph.dataflow import MOVES
from compress.quantization.graph_network import MatMul
from compress.quantization.grids import Int8Dialect, StoredGrid


@dataclass(frozen=True)
class Scales:
    """The quantizer state of a twin: `sites` by quantizer name, `weights` by module name, (outputs,) float32.

    `products`: the names of products of two tensors that are quantized.
    """

    sites: dict[str, StoredGrid]
    weights: dict[str, np.ndarray]
    products: frozenset[str]
    dialect: Int8Dialect

    @classmethod
    def of(cls, twin: Classifier, layout: Mapping[str, Any], dialect: Int8Dialect) -> "Scales":
        """Read off the quantizers of the twin of that dialect, laid out as `layout` says."""
        sites = {}
        for name, unsigned in layout["unsigned"].items():
            quantizer: Any = twin.get_submodule(name)
            if quantizer.is_enabled:
                sites[name] = dialect.stored(float(quantizer.amax), unsigned)
        weights, products = {}, set()
        for name, module in twin.named_modules():
            if isinstance(module, MatMul) and name not in layout["float_layers"]:
                products.add(name)
            if name.endswith(".weight_quantizer") and module.is_enabled:
                amax: Any = module.amax
                levels = amax.detach().cpu().numpy().reshape(-1) / 127
                weights[name.removesuffix(".weight_quantizer")] = dialect.scale(levels)
        return cls(sites, weights, frozenset(products), dialect)


def insert_pairs(proto: onnx.ModelProto, origin: Mapping[str, str], scales: Scales) -> None:
    """Put Q/DQ pairs into the float graph, in place. `origin`: node name → torch module name."""
    _Inserter(proto, scales).run(origin)


#: Operators behind which values are those of the grid that they were rounded to.
ON_GRID = MOVES | {"Identity", "MaxPool"}
#: Operator of a layer → the axis of its outputs in the weights that it reads.
OUTPUT_AXIS = {"Conv": 0, "Gemm": 0, "MatMul": 1}
QUANTIZED_OUTPUTS = ("Conv", "Relu", "Clip")


class _Inserter:
    def __init__(self, proto: onnx.ModelProto, scales: Scales) -> None:
        self.graph = proto.graph
        self.scales = scales
        self.floats = {entry.name: numpy_helper.to_array(entry) for entry in self.graph.initializer}
        self.transposed = self._transposed()
        self.floats |= self.transposed
        self.nodes: list[onnx.NodeProto] = []
        self.added: dict[str, onnx.TensorProto] = {}
        self.makers: dict[str, onnx.NodeProto] = {}
        self.pairs: dict[tuple[str, bytes, bytes], str] = {}  # tensor and grid → dequantized tensor
        self.grids: dict[str, StoredGrid] = {}  # dequantized tensor → its grid
        self.stored: dict[tuple[str, bytes], str] = {}  # layer's constant and scale → dequantized constant
        self.renamed: dict[str, str] = {}  # float tensor → dequantized tensor that all later nodes read

    def run(self, origin: Mapping[str, str]) -> None:
        for node in list(self.graph.node):
            module = origin.get(node.name, "")
            node.input[:] = [self.renamed.get(name, name) for name in node.input]
            if node.op_type in OUTPUT_AXIS and module in self.scales.weights:
                self._through(node, 0, f"{module}.input_quantizer")
                self._keep_on_grid(node, 0)
                self._weights(node, module)
            elif node.op_type == "MatMul" and module in self.scales.products:
                for position, side in enumerate("ab"):
                    self._through(node, position, f"{module}.{side}_quantizer")
                    self._keep_on_grid(node, position)
            elif node.op_type == "Add":
                for position, side in enumerate("ab"):
                    self._through(node, position, f"{module}.{side}_quantizer")
            self._append(node)
            output = self.scales.sites.get(f"{module}.output_quantizer")
            if node.op_type in QUANTIZED_OUTPUTS and output is not None:
                self.renamed[node.output[0]] = self._pair(node.output[0], output)
        read = {name for node in self.nodes for name in node.input}
        self.nodes = [node for node in self.nodes if node.output[0] in read or node.output[0] not in self.transposed]
        used = {name for node in self.nodes for name in node.input}
        kept = [entry for entry in self.graph.initializer if entry.name in used]
        del self.graph.node[:], self.graph.initializer[:]
        self.graph.node.extend(self.nodes)
        self.graph.initializer.extend([*kept, *self.added.values()])

    def _transposed(self) -> dict[str, np.ndarray]:
        """Weights that the exporter leaves to be transposed, as those of a layer that is called more than once."""
        turns = [node for node in self.graph.node if node.op_type == "Transpose" and node.input[0] in self.floats]
        orders = {node.output[0]: node.attribute[0].ints if node.attribute else None for node in turns}
        return {node.output[0]: self.floats[node.input[0]].transpose(orders[node.output[0]]) for node in turns}

    def _through(self, node: onnx.NodeProto, position: int, quantizer: str) -> None:
        """Let one input of a node pass the quantizer of that name, if there is one."""
        grid = self.scales.sites.get(quantizer)
        if grid is not None:
            node.input[position] = self._pair(node.input[position], grid)

    def _keep_on_grid(self, node: onnx.NodeProto, position: int) -> None:
        """A pair of the same grid before an input that was quantized and then moved: runtimes look for one there."""
        name = node.input[position]
        while name not in self.grids:
            maker = self.makers.get(name)
            if maker is None or maker.op_type not in ON_GRID:
                return
            name = maker.input[0]
        if name != node.input[position]:
            node.input[position] = self._pair(node.input[position], self.grids[name])

    def _pair(self, tensor: str, grid: StoredGrid) -> str:
        """QuantizeLinear and DequantizeLinear behind a tensor, once a grid; the dequantized tensor's name."""
        zero_point = np.asarray(grid.zero_point)
        key = (tensor, np.asarray(grid.scale).tobytes(), zero_point.tobytes())
        if key in self.pairs:
            return self.pairs[key]
        known = sum(1 for name, *_ in self.pairs if name == tensor)  # learned ranges of one tensor's readers differ
        lead = f"{tensor}_{known + 1}" if known else tensor
        scale = self._constant(f"{lead}_scale", grid.scale)
        zero = self._constant(f"{lead}_zero_point", zero_point)
        stored, result = f"{lead}_{zero_point.dtype}", f"{lead}_dq"
        self._append(helper.make_node("QuantizeLinear", [tensor, scale, zero], [stored], f"{lead}_quantize"))
        self._append(helper.make_node("DequantizeLinear", [stored, scale, zero], [result], f"{lead}_dequantize"))
        self.pairs[key], self.grids[result] = result, grid
        return result

    def _weights(self, node: onnx.NodeProto, module: str) -> None:
        """int8 weights per output channel; where the runtime wants that, a bias on the grid of the accumulator."""
        scale, axis = self.scales.weights[module], OUTPUT_AXIS[node.op_type]
        weight = self.floats[node.input[1]]
        per_channel = scale.reshape([-1 if side == axis else 1 for side in range(weight.ndim)])
        levels = np.clip(np.rint(weight / per_channel), -128, 127).astype(np.int8)
        node.input[1] = self._stored(f"{module}.weight", levels, scale, axis)
        if self.scales.dialect.integer_bias and len(node.input) > 2 and node.input[2]:
            accumulator = (self.grids[node.input[0]].scale * scale).astype(np.float32)
            levels = np.rint(self.floats[node.input[2]].astype(np.float64) / accumulator)
            ends = np.iinfo(np.int32)
            bias = np.clip(levels, ends.min, ends.max).astype(np.int32)  # beside tiny weights it may not fit
            node.input[2] = self._stored(f"{module}.bias", bias, accumulator, 0)

    def _stored(self, name: str, levels: np.ndarray, scale: np.ndarray, axis: int) -> str:
        """An integer constant and its DequantizeLinear, once a scale; the dequantized tensor's name."""
        key = (name, scale.tobytes())
        if key in self.stored:
            return self.stored[key]
        known = sum(1 for other, _ in self.stored if other == name)  # a layer that is called on several grids
        lead = f"{name}_{known + 1}" if known else name
        integer = self._constant(f"{lead}_{levels.dtype}", levels)
        factor = self._constant(f"{lead}_scale", scale)
        zero = self._constant(f"{lead}_zero_point", np.zeros(scale.shape, levels.dtype))
        result = f"{lead}_dq"
        inputs, label = [integer, factor, zero], f"{lead}_dequantize"
        self._append(helper.make_node("DequantizeLinear", inputs, [result], label, axis=axis))
        self.stored[key] = result
        return result

    def _append(self, node: onnx.NodeProto) -> None:
        self.nodes.append(node)
        self.makers.update(dict.fromkeys(node.output, node))

    def _constant(self, name: str, value: np.ndarray) -> str:
        self.added[name] = numpy_helper.from_array(value, name)
        return name
