"""A network as the graph of its operations: what quantization reads and changes, whatever it was written in."""

import operator
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from compress.networks.base import Classifier, Features

# the file that an operation of a graph is in, in stack traces
SOURCE = "<graph of a network>"
# in a node's meta: whether logits depend on it; the module of the network that computes it, where images reach it
DECIDES, MODULE = "decides", "module"


class MatMul(nn.Module):
    """The product of two computed tensors as a module, so that quantizers can stand before it."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.matmul(a, b)


class BoundedReLU(nn.Module):
    """ReLU6 and its like, min(max(x, 0), bound), as a module of its own; without a bound max(x, 0).

    `passes_ends`: the gradient passes at 0 and at the bound too, as that of torch.clamp; those of ReLU6 and Hardtanh
    are 0 there. It matters where values lie there exactly, as black and white pixels do.
    """

    def __init__(self, bound: "float | None", *, passes_ends: bool) -> None:
        super().__init__()
        self.bound, self.passes_ends = bound, passes_ends

    def forward(self, x: Tensor) -> Tensor:
        if self.passes_ends or self.bound is None:
            return x.clamp(0.0, self.bound)
        return nn.functional.hardtanh(x, 0.0, self.bound)


class GraphNetwork(Classifier):
    """The operations of another network as an fx graph over modules and ATen functions.

    Convolutions, linear layers, products of two tensors, ReLUs and residual sums are modules under the names that they
    have in that network, so weights keep their names. The graph gives logits, pooled features and stage maps.
    """

    def __init__(self, name: str, *, has_features: bool) -> None:
        """`name`: how lines about the network that this is the graph of call it."""
        super().__init__()
        self.name, self.has_features = name, has_features
        self.graph: fx.Graph
        self._compute: Callable[[GraphNetwork, Tensor], Any]
        self._lines: list[str]

    def follow(self, graph: fx.Graph) -> None:
        """Compute what `graph` says from now on; its output is logits, pooled features and a list of stage maps."""
        code = graph.python_code("self")
        scope = dict(code.globals)
        exec(compile(code.src, SOURCE, "exec"), scope)
        self.graph, self._compute, self._lines = graph, scope["forward"], code.src.splitlines()
        for node in everything_before(graph.output_node().args[0][0]):  # type: ignore[index,arg-type]
            node.meta[DECIDES] = True

    def deciding(self) -> list[Any]:
        """The nodes that logits depend on; what reads features alone decides nothing."""
        return [node for node in self.graph.nodes if node.meta.get(DECIDES)]

    def module_at(self, stack_trace: str) -> str:
        """The module of the network that computes the function of this graph in a stack trace; "" where none does."""
        line = re.search(rf'File "{SOURCE}", line (\d+)', stack_trace)
        name = self._lines[int(line[1]) - 1].split("=")[0].strip() if line else ""
        return next((str(node.meta.get(MODULE, "")) for node in self.graph.nodes if node.name == name), "")

    def forward_features(self, x: Tensor) -> Features:
        logits, pooled, stages = self._compute(self, x)
        return Features(logits, pooled, tuple(stages))

    def call(self, node: Any, kind: Any = nn.Module) -> Any:
        """The module that a node calls, None where it calls none of that kind."""
        if not isinstance(node, fx.Node) or node.op != "call_module":
            return None
        module = self.get_submodule(str(node.target))
        return module if isinstance(module, kind) else None

    def place(self, path: str, module: nn.Module) -> None:
        """Put `module` at a path; what stood there before hands on what is its own: children and further weights."""
        parent: nn.Module = self
        *containers, last = path.split(".")
        for name in containers:
            if name not in parent._modules:
                parent.add_module(name, nn.Module())
            parent = parent.get_submodule(name)
        if (before := parent._modules.get(last)) is not None:
            _hand_on(before, module)
            parent._modules[last] = module
        else:
            parent.add_module(last, module)

    def hold(self, path: str, value: Tensor, *, persistent: bool = True) -> None:
        """Keep a weight or a buffer at a path."""
        container, _, last = path.rpartition(".")
        if container and not _has(self, container):
            self.place(container, nn.Module())
        parent = self.get_submodule(container)
        if isinstance(value, nn.Parameter):
            parent.register_parameter(last, value)
        else:
            parent.register_buffer(last, value, persistent=persistent)

    def is_free(self, path: str) -> bool:
        """Whether nothing stands at a path."""
        container, _, last = path.rpartition(".")
        return not (_has(self, container) and hasattr(self.get_submodule(container), last))

    def arrange(self, order: list[str]) -> None:
        """Modules stand in `order`, paths of the network that this is the graph of; what it has not follows."""
        rank = {path: number for number, path in enumerate(order)}
        for path, module in list(self.named_modules()):
            lead = f"{path}." if path else ""
            names = sorted(module._modules, key=lambda name: rank.get(f"{lead}{name}", len(rank)))
            module._modules = {name: module._modules[name] for name in names}


def _hand_on(before: nn.Module, after: nn.Module) -> None:
    for name, child in before._modules.items():
        after._modules.setdefault(name, child)
    for name, weight in before._parameters.items():
        after._parameters.setdefault(name, weight)
    for name, buffer in before._buffers.items():
        if name not in after._buffers:
            after.register_buffer(name, buffer, persistent=name not in before._non_persistent_buffers_set)


def _has(root: nn.Module, path: str) -> bool:
    return any(name == path for name, _ in root.named_modules())


def everything_before(node: fx.Node) -> set[fx.Node]:
    """A node and all that it depends on."""
    found, waiting = {node}, [node]
    while waiting:
        for before in waiting.pop().all_input_nodes:
            if before not in found:
                found.add(before)
                waiting.append(before)
    return found


def readers(node: fx.Node) -> list[fx.Node]:
    """What computes logits with a tensor; to ask for its number of images is no reading."""
    return [user for user in node.users if user.meta.get(DECIDES) and user.target is not torch.ops.aten.sym_size.int]


def is_getitem(node: fx.Node) -> bool:
    """Whether a node takes one of several results."""
    return node.op == "call_function" and node.target is operator.getitem
