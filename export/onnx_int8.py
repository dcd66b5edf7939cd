"""Q/DQ for ONNX Runtime: activations unsigned 8 bit, weights int8 per channel, biases int32.

ONNX Runtime on x86 and arm64 turns a convolution into an integer one only when its input and its output carry the
same 8-bit type and a ReLU before the output's quantizer is redundant. So non-negative tensors are U8 with zero point 0,
signed ones U8 with zero point 128, which is the symmetric signed grid, shifted: both are the twin's grids exactly.
"""

from dataclasses import dataclass

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper

from compress.models import Classifier


@dataclass(frozen=True)
class Grid:
    """How one activation tensor is stored: real = scale · (level − zero_point), level in 0…255."""

    scale: np.float32
    zero_point: int


@dataclass(frozen=True)
class Scales:
    """The quantizer state of a twin: `sites` by quantizer name, `weights` by module name, (outputs,) float32."""

    sites: dict[str, Grid]
    weights: dict[str, np.ndarray]

    @classmethod
    def of(cls, twin: Classifier, layout: dict[str, dict[str, bool]]) -> "Scales":
        """Read off the quantizers of a twin laid out as `layout` says."""
        sites = {}
        for name, unsigned in layout["unsigned"].items():
            amax = float(twin.get_submodule(name).amax)  # type: ignore[arg-type]
            grid = (np.float32(amax / 255), 0) if unsigned else (np.float32(amax / 127), 128)
            sites[name] = Grid(*grid)
        weights = {}
        for name, module in twin.named_modules():
            if name.endswith(".weight_quantizer") and module.is_enabled:
                amax = module.amax.detach().cpu().numpy().reshape(-1)
                weights[name.removesuffix(".weight_quantizer")] = (amax / 127).astype(np.float32)
        return cls(sites, weights)


def float_weights(twin: Classifier) -> dict[str, torch.Tensor]:
    """The twin's weights and biases, without the quantizers' ranges."""
    return {name: value for name, value in twin.state_dict().items() if "_quantizer." not in name}


def insert(proto: onnx.ModelProto, origin: dict[str, str], scales: Scales) -> None:
    """Put Q/DQ pairs into the float graph, in place. `origin`: node name → torch module name."""
    _Inserter(proto, scales).run(origin)


class _Inserter:
    def __init__(self, proto: onnx.ModelProto, scales: Scales) -> None:
        self.graph = proto.graph
        self.scales = scales
        self.floats = {entry.name: numpy_helper.to_array(entry) for entry in self.graph.initializer}
        self.nodes: list[onnx.NodeProto] = []
        self.added: dict[str, onnx.TensorProto] = {}
        self.grids: dict[str, Grid] = {}  # dequantized tensor → its grid
        self.renamed: dict[str, str] = {}  # float tensor → dequantized tensor that all later nodes read

    def run(self, origin: dict[str, str]) -> None:
        for node in list(self.graph.node):
            module = origin.get(node.name, "")
            node.input[:] = [self.renamed.get(name, name) for name in node.input]
            if node.op_type in ("Conv", "Gemm"):
                self._through(node, 0, f"{module}.input_quantizer")
                self._weights(node, module)
            elif node.op_type == "Add":
                self._through(node, 0, f"{module}.a_quantizer")
                self._through(node, 1, f"{module}.b_quantizer")
            self.nodes.append(node)
            output = self.scales.sites.get(f"{module}.output_quantizer")
            if node.op_type == "Relu" and output is not None:
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

    def _pair(self, tensor: str, grid: Grid) -> str:
        """QuantizeLinear and DequantizeLinear behind a tensor; the dequantized tensor's name."""
        scale = self._constant(f"{tensor}_scale", np.array(grid.scale, np.float32))
        zero = self._constant(f"{tensor}_zero_point", np.array(grid.zero_point, np.uint8))
        stored, result = f"{tensor}_u8", f"{tensor}_dq"
        if result not in self.grids:
            self.nodes.append(helper.make_node("QuantizeLinear", [tensor, scale, zero], [stored], f"{tensor}_quantize"))
            self.nodes.append(
                helper.make_node("DequantizeLinear", [stored, scale, zero], [result], f"{tensor}_dequantize")
            )
            self.grids[result] = grid
        return result

    def _weights(self, node: onnx.NodeProto, module: str) -> None:
        """int8 weights per output channel, and a bias on the grid of the accumulator."""
        scale = self.scales.weights[module]
        weight = self.floats[node.input[1]]
        per_channel = scale.reshape(-1, *[1] * (weight.ndim - 1))
        levels = np.clip(np.rint(weight / per_channel), -128, 127).astype(np.int8)
        node.input[1] = self._stored(node.input[1], levels, scale)
        if len(node.input) > 2 and node.input[2]:
            accumulator = (self.grids[node.input[0]].scale * scale).astype(np.float32)
            bias = np.rint(self.floats[node.input[2]].astype(np.float64) / accumulator)
            node.input[2] = self._stored(node.input[2], bias.astype(np.int32), accumulator)

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
