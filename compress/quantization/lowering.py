"""A network's ATen operations as a `GraphNetwork`: one path for native networks and everyone else's.

BatchNorm behind a convolution or linear layer that feeds nothing else is folded into it. Attention is taken apart into
its two products and the softmax between them. What no quantizer stands at stays the ATen function that it is.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import InputKind

from compress.networks.base import Classifier
from compress.networks.tracing import UntraceableNetwork, module_path
from compress.quantization import aliasing
from compress.quantization.graph_network import MODULE, GraphNetwork, everything_before
from compress.quantization.operations import HANDLERS, LAYERS, ROOT
from compress.quantization.traces import TracedOperations, traced

aten = torch.ops.aten


def lower(network: Classifier, image: "tuple[int, ...]") -> GraphNetwork:
    """`network`, in evaluation mode, as the graph of what it computes for images (C,H,W); weights are shared with it.

    Only those of folded layers are new. UntraceableNetwork where its forward pass cannot be followed.
    """
    network.eval()
    _untie(network)
    trace = traced(_AllOutputs(network), torch.zeros(2, *image, device=device_of(network)), name_of(network))
    return Lowering(trace, network).run()


def _untie(network: nn.Module) -> None:
    """Give each module its own copy of a weight that several share, in place: as built, as its loaded stage has it."""
    seen: set[int] = set()
    for module in network.modules():
        for name, weight in module._parameters.items():
            if weight is not None and id(weight) in seen:
                module._parameters[name] = nn.Parameter(weight.detach().clone(), weight.requires_grad)
            seen.add(id(weight))


class _AllOutputs(nn.Module):
    """A network as an exporter sees it: every feature is an output."""

    def __init__(self, network: Classifier) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> "tuple[Tensor, ...]":
        features = self.network.forward_features(x)
        return features.logits, features.pooled, *features.stages


def device_of(network: nn.Module) -> torch.device:
    """Where its weights lie; a network without any computes where its images do."""
    return next((weight.device for weight in network.parameters()), torch.device("cpu"))


def name_of(network: Any) -> str:
    """How lines call a network: by the name that it has, else by its class."""
    name = getattr(network, "name", None)
    return name if isinstance(name, str) and name else type(network).__name__


class Lowering:
    """One program on its way into a graph of modules and functions."""

    def __init__(self, trace: TracedOperations, network: Classifier) -> None:
        self.trace, self.name = trace, name_of(network)
        self.result = GraphNetwork(self.name, has_features=network.has_features)
        self.graph = fx.Graph()
        self.nodes: dict[fx.Node, fx.Node] = {}  # of the program → of the graph
        self.constants: set[fx.Node] = set()  # what no image reaches
        self.taken: set[str] = set()
        self.shared: dict[Any, str] = {}  # a layer's weights and geometry → its module
        self.device: fx.Node | None = None
        self.originals = dict(network.named_modules())
        self.original: Callable[[str], nn.Module | None] = self.originals.get
        held = {**dict(network.named_parameters(remove_duplicate=False)), **dict(network.named_buffers())}
        self.names = {*self.originals, *held}
        self.weights = self._stored(held)
        self.live = everything_before(trace.graph.output_node())
        self.calls = Counter(str(node.args[1]) for node in self.live if node.target in LAYERS)

    def _stored(self, held: "dict[str, Tensor]") -> "dict[fx.Node, tuple[str, Tensor, bool]]":
        """What the program's inputs but the image hold: name, value, and whether a file of weights has it."""
        inputs = {node.name: node for node in self.trace.graph.nodes if node.op == "placeholder"}
        stored = {}
        for spec in self.trace.inputs:
            if spec.kind is InputKind.USER_INPUT:
                continue
            if spec.kind not in (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
                raise UntraceableNetwork(f"{self.name}: it holds a {spec.kind.name}, which is no tensor")
            name = str(spec.target).removeprefix(f"{ROOT}.")
            value = held[name] if name in held else self.trace.constants[str(spec.target)]
            in_file = spec.kind is not InputKind.CONSTANT_TENSOR and spec.persistent is not False
            stored[inputs[spec.arg.name]] = (name, value, in_file)
        return stored

    def run(self) -> GraphNetwork:
        if taken := [name for name in self.names if "." not in name and hasattr(self.result, name)]:
            raise UntraceableNetwork(
                f"{self.name}: has a module or a weight {taken[0]!r}, a name that its graph keeps for itself; give it "
                f"another one"
            )
        aliasing.refuse_partial_writes(self.trace.graph, self.name)
        for node in self.trace.graph.nodes:
            if node in self.weights or (node.op == "call_function" and self.constants.issuperset(node.all_input_nodes)):
                self.constants.add(node)
            if node.op == "placeholder":
                if node not in self.weights:
                    self.image = self.nodes[node] = self.graph.placeholder("x")
            elif node.op == "output":
                logits, pooled, *stages = (self.nodes[value] for value in node.args[0])
                self.graph.output((logits, pooled, stages))
            elif node in self.live:
                self.nodes[node] = self._lowered(node)
        _drop_unread(self.graph)
        self._hold_what_is_read()
        self.result.arrange(list(self.originals))
        self.result.follow(self.graph)
        return self.result.eval()

    def _lowered(self, node: fx.Node) -> fx.Node:
        if node.op != "call_function" or isinstance(node.target, torch._ops.HigherOrderOperator):
            raise UntraceableNetwork(
                f"{self.where(node) or 'its forward'} of {self.name}: runs {node.target}, a block of "
                f"operations of its own; take it out of the forward (control flow)"
            )
        special = HANDLERS.get(aliasing.functional(node.target))
        lowered = special(self, node) if special is not None else None
        return self._function(node) if lowered is None else lowered

    # ------------------------------------------------------------------------------------------ parts of the graph

    def _function(self, node: fx.Node) -> fx.Node:
        """The same function, creating tensors where the image lies and changing none in place."""
        args = fx.map_arg(node.args, self.new)
        kwargs = dict(fx.map_arg(node.kwargs, self.new))
        if kwargs.get("device") is not None:
            kwargs["device"] = self._device()
        target = aliasing.functional(node.target)
        # a view needs the strides that the tensor had when it was traced
        target = torch.ops.aten.reshape.default if target is torch.ops.aten.view.default else target
        function = self.graph.call_function(target, args, kwargs)
        if node not in self.constants:
            function.meta[MODULE] = self.where(node)
        return function

    def new(self, node: fx.Node) -> fx.Node:
        """The graph's node for one of the program's; of a weight one that reads it."""
        if node not in self.nodes:
            self.nodes[node] = self.graph.get_attr(self.weights[node][0])
        return self.nodes[node]

    def _hold_what_is_read(self) -> None:
        """Weights and buffers that functions read, under their names; what a layer holds already is read there.

        Where a layer holds another under that name, as a folded convolution its weight, it is numbered.
        """
        result = self.result
        paths = {id(weight): name for name, weight in result.named_parameters(remove_duplicate=False)}
        read = {node.target: self.weights[before] for before, node in self.nodes.items() if node.op == "get_attr"}
        for node in self.graph.nodes:
            if node.op != "get_attr":
                continue
            name, value, in_file = read[node.target]
            if id(value) not in paths:
                if not result.is_free(name):
                    self.taken.add(name)
                    name = self.free_path(name)
                paths[id(value)] = name
                result.hold(name, value, persistent=in_file)
            node.target = paths[id(value)]

    def _device(self) -> fx.Node:
        if self.device is None:
            self.device = self.graph.call_function(getattr, (self.image, "device"))
        return self.device

    def call(self, path: str, module: nn.Module, *inputs: fx.Node) -> fx.Node:
        self.result.place(path, module)
        return self.graph.call_module(path, inputs)

    def live_users(self, node: fx.Node) -> list[fx.Node]:
        """What reads a tensor on the way to an output."""
        return [user for user in node.users if user in self.live]

    def where(self, node: fx.Node) -> str:
        """The innermost module of the network whose forward computes a node."""
        path = module_path(node)
        return "" if path == ROOT else path.removeprefix(f"{ROOT}.")

    def own_path(self, node: fx.Node, kind: str, *classes: type) -> str:
        """The module that is nothing but this operation, else a name inside the one whose forward computes it."""
        where = self.where(node)
        if isinstance(self.original(where), classes):
            return self.free_path(where)
        return self.free_path(f"{where}.{kind}" if where else kind, is_new=True)

    def free_path(self, path: str, *, is_new: bool = False) -> str:
        """`path`, numbered from the second of its kind on; `is_new`: the network has nothing under that name."""
        free, number = path, 1
        while free in self.taken or ((is_new or number > 1) and free in self.names):
            number += 1
            free = f"{path}_{number}"
        self.taken.add(free)
        return free

    # ------------------------------------------------------------------------------------------ constants

    def is_constant(self, value: Any) -> bool:
        """Whether no image reaches a value."""
        return not isinstance(value, fx.Node) or value in self.constants

    def value_of(self, node: Any) -> Any:
        """What a constant is."""
        if not isinstance(node, fx.Node):
            return node
        if node in self.weights:
            return self.weights[node][1]
        args, kwargs = fx.map_arg(node.args, self.value_of), fx.map_arg(node.kwargs, self.value_of)
        with torch.no_grad():
            return aliasing.functional(node.target)(*args, **kwargs)

    def weight_of(self, value: Any) -> "nn.Parameter | None":
        """A layer's weight or bias: the network's own, or what it computes of its own once and for all."""
        if value is None:
            return None
        tensor = self.value_of(value)
        return tensor if isinstance(tensor, nn.Parameter) else nn.Parameter(tensor.detach().clone())

    def layer_path(self, node: fx.Node, weight: Any, kind: str) -> str:
        """Where a layer stands: its weight keeps the name that it has."""
        if weight not in self.weights:
            return self.own_path(node, kind, nn.Conv2d, nn.Linear)
        container, _, last = self.weights[weight][0].rpartition(".")
        if last == "weight" and container:
            return self.free_path(container)
        own = last.removesuffix("weight").strip("_") or kind
        return self.free_path(f"{container}.{own}" if container else own)


def _drop_unread(graph: fx.Graph) -> None:
    """What a computed weight was computed from."""
    for node in reversed(list(graph.nodes)):
        if not node.users and node.op not in ("placeholder", "output"):
            graph.erase_node(node)
