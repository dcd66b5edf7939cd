"""Q/DQ pairs for INT8, in the dialect of the runtime that reads them (`compress.quantization.grids`)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from compress.networks.base import Classifier
from compress.quantization.grids import Int8Dialect, StoredGrid


@dataclass(frozen=True)
class Scales:
    """The quantizer state of a twin: `sites` by quantizer name, `weights` by module name, (outputs,) float32."""

    sites: dict[str, StoredGrid]
    weights: dict[str, np.ndarray]
    dialect: Int8Dialect

    @classmethod
    def of(cls, twin: Classifier, layout: Mapping[str, Any], dialect: Int8Dialect) -> "Scales":
        """Read off the quantizers of the twin of that dialect, laid out as `layout` says."""
        sites = {}
        for name, unsigned in layout["unsigned"].items():
            quantizer: Any = twin.get_submodule(name)
            if quantizer.is_enabled:
                sites[name] = dialect.stored(float(quantizer.amax), unsigned)
        weights = {}
        for name, module in twin.named_modules():
            if name.endswith(".weight_quantizer") and module.is_enabled:
                amax: Any = module.amax
                levels = amax.detach().cpu().numpy().reshape(-1) / 127
                weights[name.removesuffix(".weight_quantizer")] = dialect.scale(levels)
        return cls(sites, weights, dialect)


def insert_pairs(proto: onnx.ModelProto, origin: Mapping[str, str], scales: Scales) -> None:
    """Put Q/DQ pairs into the float graph, in place. `origin`: node name → torch module name."""
    _Inserter(proto, scales).run(origin)


class _Inserter:
    def __init__(self, proto: onnx.ModelProto, scales: Scales) -> None:
        self.graph = proto.graph
        self.scales = scales
        self.floats = {entry.name: numpy_helper.to_array(entry) for entry in self.graph.initializer}
        self.nodes: list[onnx.NodeProto] = []
        self.added: dict[str, onnx.TensorProto] = {}
        self.grids: dict[str, StoredGrid] = {}  # dequantized tensor → its grid
        self.renamed: dict[str, str] = {}  # float tensor → dequantized tensor that all later nodes read

    def run(self, origin: Mapping[str, str]) -> None:
        for node in list(self.graph.node):
            module = origin.get(node.name, "")
            node.input[:] = [self.renamed.get(name, name) for name in node.input]
            if node.op_type in ("Conv", "Gemm"):
                self._through(node, 0, f"{module}.input_quantizer")
                if module in self.scales.weights:
                    self._weights(node, module)
            elif node.op_type == "Add":
                self._through(node, 0, f"{module}.a_quantizer")
                self._through(node, 1, f"{module}.b_quantizer")
            self.nodes.append(node)
            output = self.scales.sites.get(f"{module}.output_quantizer")
            if node.op_type in ("Conv", "Relu") and output is not None:
                self.renamed[node.output[0]] = self._pair(node.output[0], output)
        used = {name for node in self.nodes for name in node.input}
        kept = [entry for entry in self.graph.initializer if entry.name in used]
        del self.graph.node[:], self.graph.initializer[:]
        self.graph.node.extend(self.nodes)
        self.graph.initializer.extend([*kept, *self.added.values()])

    def _through(self, node: onnx.NodeProto, position: int, quantizer: str) -> None:
        """Let one input of a node pass the quantizer of that name, if there is one."""
        grid = self.scales.sites.get(quantizer)
        if grid is not None:
            node.input[position] = self._pair(node.input[position], grid)

    def _pair(self, tensor: str, grid: StoredGrid) -> str:
        """QuantizeLinear and DequantizeLinear behind a tensor; the dequantized tensor's name."""
        zero_point = np.asarray(grid.zero_point)
        scale = self._constant(f"{tensor}_scale", grid.scale)
        zero = self._constant(f"{tensor}_zero_point", zero_point)
        stored, result = f"{tensor}_{zero_point.dtype}", f"{tensor}_dq"
        if result not in self.grids:
            self.nodes.append(helper.make_node("QuantizeLinear", [tensor, scale, zero], [stored], f"{tensor}_quantize"))
            self.nodes.append(
                helper.make_node("DequantizeLinear", [stored, scale, zero], [result], f"{tensor}_dequantize")
            )
            self.grids[result] = grid
        return result

    def _weights(self, node: onnx.NodeProto, module: str) -> None:
        """int8 weights per output channel; where the runtime wants that, a bias on the grid of the accumulator."""
        scale = self.scales.weights[module]
        weight = self.floats[node.input[1]]
        per_channel = scale.reshape(-1, *[1] * (weight.ndim - 1))
        levels = np.clip(np.rint(weight / per_channel), -128, 127).astype(np.int8)
        node.input[1] = self._stored(node.input[1], levels, scale)
        if self.scales.dialect.integer_bias and len(node.input) > 2 and node.input[2]:
            accumulator = (self.grids[node.input[0]].scale * scale).astype(np.float32)
            levels = np.rint(self.floats[node.input[2]].astype(np.float64) / accumulator)
            ends = np.iinfo(np.int32)
            bias = np.clip(levels, ends.min, ends.max).astype(np.int32)  # beside tiny weights it may not fit
            node.input[2] = self._stored(node.input[2], bias, accumulator)

    def _stored(self, name: str, levels: np.ndarray, scale: np.ndarray) -> str:
        """An integer constant and its DequantizeLinear along axis 0; the dequantized tensor's name."""
        integer = self._constant(f"{name}_{levels.dtype}", levels)
        factor = self._constant(f"{name}_scale", scale)
        zero = self._constant(f"{name}_zero_point", np.zeros(scale.shape, levels.dtype))
        result = f"{name}_dq"
        self.nodes.append(
            helper.make_node("DequantizeLinear", [integer, factor, zero], [result], f"{name}_dequantize", axis=0)
        )
        return result

    def _constant(self, name: str, value: np.ndarray) -> str:
        self.added[name] = numpy_helper.from_array(value, name)
        return name
