"""A network's ATen operations as a `GraphNetwork`: one path for native networks and everyone else's.

BatchNorm behind a convolution or linear layer that feeds nothing else is folded into it. Attention is taken apart into
its two products and the softmax between them. What no quantizer stands at stays the ATen function that it is.
"""

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import InputKind
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from compress.networks.base import Activation, Add, Classifier
from compress.networks.tracing import UntraceableNetwork, module_path, trace_program
from compress.quantization import aliasing
from compress.quantization.graph_network import BoundedReLU, GraphNetwork, MatMul, readers

aten = torch.ops.aten
ROOT = "network"
#: Checks of the exporter's own, which compute nothing.
CHECKS = (aten._assert_tensor_metadata.default, aten._assert_scalar.default, aten._assert_async.msg)
CASTS = (aten.to.dtype, aten.to.device, aten.to.dtype_layout, aten._to_copy.default, aten.contiguous.default)
BATCH_NORMS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


def lower(network: Classifier, image: "tuple[int, ...]") -> GraphNetwork:
    """`network`, in evaluation mode, as the graph of what it computes for images (C,H,W); weights are shared with it.

    Only those of folded layers are new. UntraceableNetwork where its forward pass cannot be followed.
    """
    network.eval()
    where = next(network.parameters()).device
    with torch.no_grad():
        program = trace_program(_AllOutputs(network), torch.zeros(2, *image, device=where), _named(network))
    return _Lowering(program, network).run()


class _AllOutputs(nn.Module):
    """A network as an exporter sees it: every feature is an output."""

    def __init__(self, network: Classifier) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> "tuple[Tensor, ...]":
        features = self.network.forward_features(x)
        return features.logits, features.pooled, *features.stages


def _named(network: Classifier) -> str:
    return str(getattr(network, "name", "") or type(network).__name__)


class _Lowering:
    """One program on its way into a graph of modules and functions."""

    def __init__(self, program: torch.export.ExportedProgram, network: Classifier) -> None:
        self.program, self.name = program, _named(network)
        self.result = GraphNetwork(has_features=network.has_features)
        self.graph = fx.Graph()
        self.nodes: dict[fx.Node, fx.Node] = {}  # of the program → of the graph
        self.taken: set[str] = set()
        self.shared: dict[Any, str] = {}  # a layer's weights and geometry → its module
        self.device: fx.Node | None = None
        self.originals = dict(network.named_modules())
        self.original: Callable[[str], nn.Module | None] = self.originals.get
        self.weights: dict[fx.Node, tuple[str, Tensor, bool]] = self._stored(network)
        self.calls = Counter(str(node.args[1]) for node in program.graph.nodes if node.target in LAYERS)

    def _stored(self, network: Classifier) -> "dict[fx.Node, tuple[str, Tensor, bool]]":
        """What the program's inputs but the image hold: name, value, and whether a file of weights has it."""
        held = {**dict(network.named_parameters(remove_duplicate=False)), **dict(network.named_buffers())}
        inputs = {node.name: node for node in self.program.graph.nodes if node.op == "placeholder"}
        stored = {}
        for spec in self.program.graph_signature.input_specs:
            if spec.kind is InputKind.USER_INPUT:
                continue
            if spec.kind not in (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
                raise UntraceableNetwork(f"{self.name}: it holds a {spec.kind.name}, which is no tensor")
            name = str(spec.target).removeprefix(f"{ROOT}.")
            value = held[name] if name in held else self.program.constants[str(spec.target)]
            in_file = spec.kind is not InputKind.CONSTANT_TENSOR and spec.persistent is not False
            stored[inputs[spec.arg.name]] = (name, value, in_file)
        return stored

    def run(self) -> GraphNetwork:
        aliasing.refuse_partial_writes(self.program.graph, self.name)
        for node in self.program.graph.nodes:
            if node.op == "placeholder":
                if node not in self.weights:
                    self.image = self.nodes[node] = self.graph.placeholder("x")
            elif node.op == "output":
                logits, pooled, *stages = (self.nodes[value] for value in node.args[0])
                self.graph.output((logits, pooled, stages))
            elif node.target not in CHECKS:
                self.nodes[node] = self._lowered(node)
        _drop_unread(self.graph)
        for node in self.graph.nodes:
            node.meta.clear()
        self.result.arrange(list(self.originals))
        self.result.follow(self.graph)
        return self.result.eval()

    def _lowered(self, node: fx.Node) -> fx.Node:
        if node.op != "call_function" or isinstance(node.target, torch._ops.HigherOrderOperator):
            raise UntraceableNetwork(
                f"{module_path(node, f'{ROOT}.')[0] or 'its forward'} of {self.name}: runs {node.target}, a block of "
                f"operations of its own; take it out of the forward (torch.no_grad, autocast, control flow)"
            )
        special = HANDLERS.get(aliasing.functional(node.target))
        lowered = special(self, node) if special is not None else None
        return self._function(node) if lowered is None else lowered

    # ------------------------------------------------------------------------------------------ parts of the graph

    def _function(self, node: fx.Node) -> fx.Node:
        """The same function, creating tensors where the image lies and changing none in place."""
        args = fx.map_arg(node.args, self._new)
        kwargs = dict(fx.map_arg(node.kwargs, self._new))
        if kwargs.get("device") is not None:
            kwargs["device"] = self._device()
        return self.graph.call_function(aliasing.functional(node.target), args, kwargs)

    def _new(self, node: fx.Node) -> fx.Node:
        """The graph's node for one of the program's; of a weight one that reads it."""
        if node not in self.nodes:
            name, value, in_file = self.weights[node]
            self.result.hold(name, value, persistent=in_file)
            self.nodes[node] = self.graph.get_attr(name)
        return self.nodes[node]

    def _device(self) -> fx.Node:
        if self.device is None:
            self.device = self.graph.call_function(getattr, (self.image, "device"))
        return self.device

    def _call(self, path: str, module: nn.Module, *inputs: fx.Node) -> fx.Node:
        self.result.place(path, module)
        return self.graph.call_module(path, inputs)

    def _own_path(self, node: fx.Node, kind: str, *classes: type) -> str:
        """The module that is nothing but this operation, else a name inside the one whose forward computes it."""
        where, _ = module_path(node, f"{ROOT}.")
        where = where if where != ROOT else ""
        if isinstance(self.original(where), classes):
            return self._free(where)
        return self._free(f"{where}.{kind}" if where else kind)

    def _free(self, path: str) -> str:
        """`path`, numbered from the second of its kind on."""
        free, number = path, 1
        while free in self.taken or (number > 1 and self.original(free) is not None):
            number += 1
            free = f"{path}_{number}"
        self.taken.add(free)
        return free

    # ------------------------------------------------------------------------------------------ constants

    def _is_constant(self, value: Any) -> bool:
        """Whether no image reaches a value."""
        if not isinstance(value, fx.Node) or value in self.weights:
            return True
        return value.op == "call_function" and all(self._is_constant(before) for before in value.all_input_nodes)

    def _value(self, node: Any) -> Any:
        """What a constant is."""
        if not isinstance(node, fx.Node):
            return node
        if node in self.weights:
            return self.weights[node][1]
        args, kwargs = fx.map_arg(node.args, self._value), fx.map_arg(node.kwargs, self._value)
        with torch.no_grad():
            return node.target(*args, **kwargs)  # type: ignore[operator]

    def _weight(self, value: Any) -> "nn.Parameter | None":
        """A layer's weight or bias: the network's own, or what it computes of its own once and for all."""
        if value is None:
            return None
        tensor = self._value(value)
        return tensor if isinstance(tensor, nn.Parameter) else nn.Parameter(tensor.detach().clone())

    def _layer_path(self, node: fx.Node, weight: Any, kind: str) -> str:
        """Where a layer stands: its weight keeps the name that it has."""
        if weight not in self.weights:
            return self._own_path(node, kind, nn.Conv2d, nn.Linear)
        container, _, last = self.weights[weight][0].rpartition(".")
        if last == "weight" and container:
            return self._free(container)
        own = last.removesuffix("weight").strip("_") or kind
        return self._free(f"{container}.{own}" if container else own)


# ---------------------------------------------------------------------------------------------- what is lowered


def _convolution(lowering: _Lowering, node: fx.Node) -> "fx.Node | None":
    x, weight, bias, stride, padding, dilation, groups = _filled(node, 7, (None, 1, 0, 1, 1))
    if not (lowering._is_constant(weight) and lowering._is_constant(bias)):
        return None
    key = (weight, bias, str((stride, padding, dilation, groups)))
    if key not in lowering.shared:
        values = lowering._weight(weight)
        assert values is not None
        outputs, inputs, *kernel = values.shape
        plain = nn.Conv2d(
            inputs * groups,
            outputs,
            kernel,  # type: ignore[arg-type]
            stride,
            padding,
            dilation,
            groups,
            bias=False,
            device="meta",
        )
        plain.weight, plain.bias = values, lowering._weight(bias)
        lowering.shared[key] = lowering._layer_path(node, weight, "conv2d")
        return lowering._call(lowering.shared[key], plain, lowering._new(x))
    return lowering.graph.call_module(lowering.shared[key], (lowering._new(x),))


def _linear(lowering: _Lowering, node: fx.Node) -> "fx.Node | None":
    x, weight, bias = _filled(node, 3, (None,))
    return _dense(lowering, node, x, weight, bias)


def _dense(lowering: _Lowering, node: fx.Node, x: fx.Node, weight: Any, bias: Any, *, turned: bool = False) -> Any:
    """A linear layer of constant weights (outputs, inputs), or with `turned` (inputs, outputs)."""
    if lowering._is_constant(x) or not (lowering._is_constant(weight) and lowering._is_constant(bias)):
        return None
    key = (weight, bias, turned)
    if key not in lowering.shared:
        values = lowering._weight(weight)
        assert values is not None
        values = nn.Parameter(values.detach().T.contiguous()) if turned else values
        plain = nn.Linear(values.shape[1], values.shape[0], bias=False, device="meta")
        plain.weight, plain.bias = values, lowering._weight(bias)  # type: ignore[assignment]
        lowering.shared[key] = lowering._layer_path(node, weight, "linear")
        return lowering._call(lowering.shared[key], plain, lowering._new(x))
    return lowering.graph.call_module(lowering.shared[key], (lowering._new(x),))


def _batch_norm(lowering: _Lowering, node: fx.Node) -> "fx.Node | None":
    x, weight, bias, mean, variance, training, momentum, eps = _filled(node, 8, ())
    constants = (weight, bias, mean, variance)
    if training or mean is None or not all(lowering._is_constant(value) for value in constants):
        return None
    rank = x.meta["val"].ndim
    bn = BATCH_NORMS[rank](lowering._value(mean).shape[0], eps, momentum, affine=False, device="meta")
    bn.weight, bn.bias = lowering._weight(weight), lowering._weight(bias)
    bn.running_mean, bn.running_var = lowering._value(mean), lowering._value(variance)
    where, _ = module_path(node, f"{ROOT}.")
    original = lowering.original(where)
    if isinstance(original, nn.modules.batchnorm._BatchNorm):
        bn.momentum, bn.num_batches_tracked = original.momentum, original.num_batches_tracked
    before = lowering._new(x)
    layer = lowering.result.call(before, nn.Conv2d | nn.Linear)
    if layer is not None and len(readers(x)) == len(x.users) == 1 and lowering.calls[str(x.args[1])] == 1:
        if isinstance(layer, nn.Conv2d) and rank == 4:
            lowering.result.place(str(before.target), fuse_conv_bn_eval(layer.eval(), bn.eval()))
            return before
        if isinstance(layer, nn.Linear) and rank == 2:
            lowering.result.place(str(before.target), fuse_linear_bn_eval(layer.eval(), bn.eval()))
            return before
    return lowering._call(lowering._own_path(node, "batch_norm", nn.modules.batchnorm._BatchNorm), bn, before)


def _relu(lowering: _Lowering, node: fx.Node) -> fx.Node:
    return lowering._call(lowering._own_path(node, "relu", nn.ReLU), Activation(), lowering._new(node.args[0]))


def _bounded(lowering: _Lowering, node: fx.Node) -> "fx.Node | None":
    """ReLU with an upper end, or clamping at 0 alone."""
    low, high = (*node.args[1:], *node.kwargs.values(), None, None)[:2]
    if aliasing.functional(node.target) is aten.hardtanh.default:
        low, high = _filled(node, 3, (-1.0, 1.0))[1:]
    if aliasing.functional(node.target) is aten.relu6.default:
        low, high = 0.0, 6.0
    if low != 0 or not (high is None or isinstance(high, int | float)):
        return None
    path = lowering._own_path(node, "relu", nn.ReLU6, nn.Hardtanh)
    module = Activation() if high is None else BoundedReLU(float(high))
    return lowering._call(path, module, lowering._new(node.args[0]))


def _sum(lowering: _Lowering, node: fx.Node) -> "fx.Node | None":
    """The sum of two computed tensors of one shape."""
    a, b = node.args
    if node.kwargs.get("alpha", 1) != 1 or lowering._is_constant(a) or lowering._is_constant(b):
        return None
    shapes = {str(tuple(side.meta["val"].shape)) for side in (a, b)}
    if len(shapes) > 1 or not node.meta["val"].is_floating_point():
        return None
    path = lowering._own_path(node, "add", Add)
    return lowering._call(path, Add(), lowering._new(a), lowering._new(b))


def _product(lowering: _Lowering, node: fx.Node) -> "fx.Node | None":
    a, b = node.args
    if lowering._is_constant(b) and b.meta["val"].ndim == 2:
        return _dense(lowering, node, a, b, None, turned=True)
    if lowering._is_constant(a) or lowering._is_constant(b):
        return None
    return lowering._call(lowering._own_path(node, "matmul"), MatMul(), lowering._new(a), lowering._new(b))


def _attention(lowering: _Lowering, node: fx.Node) -> "fx.Node | None":
    """softmax(q kᵀ · scale + mask) v, its two products as modules."""
    q, k, v, mask, dropout, causal = _filled(node, 6, (None, 0.0, False))
    if causal or dropout or node.kwargs.get("enable_gqa"):
        return None
    graph, scale = lowering.graph, node.kwargs.get("scale")
    scale = 1 / math.sqrt(q.meta["val"].shape[-1]) if scale is None else scale
    turned = graph.call_function(aten.transpose.int, (lowering._new(k), -2, -1))
    first = lowering._own_path(node, "matmul")
    scores = lowering._call(first, MatMul(), lowering._new(q), turned)
    scores = graph.call_function(aten.mul.Tensor, (scores, scale))
    if mask is not None:
        bias = lowering._new(mask)
        if mask.meta["val"].dtype == torch.bool:
            hidden = graph.call_function(aten.logical_not.default, (bias,))
            scores = graph.call_function(aten.masked_fill.Scalar, (scores, hidden, -math.inf))
        else:
            scores = graph.call_function(aten.add.Tensor, (scores, bias))
    shares = graph.call_function(aten.softmax.int, (scores, -1))
    return lowering._call(lowering._own_path(node, "matmul"), MatMul(), shares, lowering._new(v))


def _dropout(lowering: _Lowering, node: fx.Node) -> "fx.Node | None":
    x, share, training = node.args
    if training:
        return None
    where, _ = module_path(node, f"{ROOT}.")
    if not isinstance(lowering.original(where), nn.Dropout):
        return lowering._new(x)
    return lowering._call(lowering._free(where), nn.Dropout(share), lowering._new(x))


def _cast(lowering: _Lowering, node: fx.Node) -> "fx.Node | None":
    """Nothing, where the type stays as it is."""
    x = node.args[0]
    same = isinstance(x, fx.Node) and x.meta["val"].dtype == node.meta["val"].dtype
    return lowering._new(x) if same else None


def _filled(node: fx.Node, count: int, defaults: "tuple[Any, ...]") -> "tuple[Any, ...]":
    """The first `count` positional arguments of a node, missing ones from the `defaults` of the last of them."""
    args = tuple(node.args)
    return (*args, *defaults[len(defaults) - (count - len(args)) :])[:count] if len(args) < count else args[:count]


def _drop_unread(graph: fx.Graph) -> None:
    for node in reversed(list(graph.nodes)):
        if not node.users and node.op not in ("placeholder", "output"):
            graph.erase_node(node)


LAYERS = (aten.conv2d.default, aten.conv2d.padding, aten.linear.default)
HANDLERS: dict[Any, Callable[[_Lowering, fx.Node], "fx.Node | None"]] = {
    aten.conv2d.default: _convolution,
    aten.conv2d.padding: _convolution,
    aten.linear.default: _linear,
    aten.batch_norm.default: _batch_norm,
    aten.relu.default: _relu,
    aten.relu6.default: _bounded,
    aten.hardtanh.default: _bounded,
    aten.clamp.default: _bounded,
    aten.clamp_min.default: _bounded,
    aten.add.Tensor: _sum,
    aten.matmul.default: _product,
    aten.bmm.default: _product,
    aten.scaled_dot_product_attention.default: _attention,
    aten.dropout.default: _dropout,
    **dict.fromkeys(CASTS, _cast),
}
