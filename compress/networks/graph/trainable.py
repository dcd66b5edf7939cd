"""An ONNX graph as a torch network whose weights learn: layers as modules, the rest by the twin's own operators.

In training BatchNormalization takes its statistics from the batch, Dropout drops.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any

import onnx
from torch import Tensor, nn

from compress.networks.graph import Node
from compress.networks.graph.execution import MEASURES
from compress.networks.graph.layer_names import LayerNames
from compress.networks.graph.layers import Layer, layer_of
from compress.networks.graph.onnx_twin import GraphTwin, build_twin
from compress.networks.graph.output_meaning import LOGITS, OutputMeaning

#: The operator of a node that a module computes; its attribute `path` says which.
LAYER = "Layer"
#: Operators that multiply by weights: constants before the first of them are those of input normalization.
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "BatchNormalization")


class OnnxNetwork(GraphTwin):
    """The classifier of an ONNX graph of any number of images: (B,C,H,W) in [0, 1] → what the graph gives (B,K).

    Parameters bear the names of the file's initializers. `stored`: constants of the graph whose values the state has.
    """

    def __init__(self, proto: onnx.ModelProto, where: str) -> None:
        """CompressError, of one line, where it cannot be rebuilt."""
        twin = build_twin(proto.SerializeToString(), where=where)
        nodes, constants = twin.stated.nodes, twin.constants
        modules = _with_layers(nodes, constants, twin.stated.result)
        super().__init__(
            [node for node, _ in modules], constants, {}, twin.entry, twin.stated.result, 0, OutputMeaning(LOGITS)
        )
        self.names = LayerNames({*dir(self)})
        self.stored: set[str] = set()
        paths: dict[Any, str] = {}
        for node, layer in modules:
            if layer is not None:
                key = layer.shared or node.outputs
                if key not in paths:
                    paths[key] = self._place(layer)
                node.attributes["path"] = paths[key]  # type: ignore[index]
        learns = _learning(proto, nodes, constants, twin.entry)
        for name in self.places:
            self.places[name] = self._hold(name, constants[name].detach().clone(), learns=name in learns)

    def _result(self, node: Node, inputs: "Sequence[Any]") -> Any:
        if node.op == LAYER:
            return self.get_submodule(node.attributes["path"])(inputs[0])
        return super()._result(node, inputs)

    def _constant(self, place: str) -> Tensor:
        value: Tensor = attrgetter(place)(self)
        return value

    def _hold(self, name: str, value: Tensor, *, learns: bool) -> str:
        """The path at which a constant that an operator reads is kept from now on."""
        del self._buffers[self.places[name]]
        path = self.names.of_constant(name)
        parent, leaf = self._parent(path)
        if learns:
            parent.register_parameter(leaf, nn.Parameter(value))
            self.stored.add(name)
        else:
            parent.register_buffer(leaf, value, persistent=False)
        return path

    def _place(self, layer: Layer) -> str:
        """The path at which a layer's module stands from now on."""
        path = self.names.of_layer(layer.node, layer.weights)
        parent, leaf = self._parent(path)
        parent.add_module(leaf, layer.module)
        self.stored.update(layer.weights)
        return path

    def _parent(self, path: str) -> "tuple[nn.Module, str]":
        """What holds the last part of a path."""
        parent: nn.Module = self
        *containers, leaf = path.split(".")
        for name in containers:
            if name not in parent._modules:
                parent.add_module(name, nn.Module())
            parent = parent.get_submodule(name)
        return parent, leaf


def _with_layers(
    nodes: Sequence[Node], constants: Mapping[str, Tensor], result: str
) -> "list[tuple[Node, Layer | None]]":
    """The nodes in their order, those that are layers with them and with but one input."""
    readers: dict[str, list[Node]] = {result: [Node("", "", (), (), {}, 0)]}
    for node in nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)
    chosen, computed = list[tuple[Node, Layer | None]](), set[str]()
    for node in nodes:
        if node.outputs[0] in computed:
            continue
        layer = layer_of(node, constants, readers.get(node.outputs[0], []))
        if layer is None:
            chosen.append((node, None))
        else:
            outputs = (layer.follower or node).outputs[:1]
            computed.update(outputs)
            chosen.append((replace(node, op=LAYER, inputs=node.inputs[:1], outputs=outputs, attributes={}), layer))
    return chosen


def _learning(proto: onnx.ModelProto, nodes: Sequence[Node], constants: Mapping[str, Tensor], entry: str) -> set[str]:
    """The constants, layers' apart, that learn: of several finite numbers, made of initializers, behind a first layer.

    What stands before the first layer is input normalization, and one number alone an epsilon or a scale.
    """
    weights = {entry.name for entry in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type != "Constant" and weights.intersection(node.input):
            weights.update(name for name in node.output if name in constants)
    before, chosen = {entry}, set[str]()  # `before`: what depends on the image, and on no weights yet
    for each in nodes:
        if before.intersection(each.inputs) and each.op not in (*WEIGHTED, *MEASURES):
            before.update(each.outputs)
            continue
        for name in each.inputs:
            value = constants.get(name)
            if name not in weights or value is None or not value.is_floating_point():
                continue
            if (value.numel() > 1 or each.op == "PRelu") and bool(value.isfinite().all()):
                chosen.add(name)
    return chosen
