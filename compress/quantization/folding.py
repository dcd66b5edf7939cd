"""BatchNorm folded into the convolution before it, and where quantizers belong, both read off the traced graph."""

from typing import Any

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from compress.networks.base import Activation, Add, Classifier, SamePad
from edge.core.errors import CompressError, first_line


class UntraceableNetwork(CompressError):
    """A forward pass that cannot be followed without an input."""


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, qualified_name: str) -> bool:
        known = nn.Conv2d | nn.Linear | Activation | Add | SamePad  # with quantizers in them too
        return isinstance(module, known) or super().is_leaf_module(module, qualified_name)


def trace(model: Classifier) -> fx.Graph:
    """The operations of `model.forward`, with layers, activations, sums and paddings as modules, quantized or not."""
    try:
        return _Tracer().trace(model)
    except Exception as fault:  # whatever a forward pass raises that meets proxies in place of tensors
        raise UntraceableNetwork(
            f"{type(model).__name__}: what it computes depends on its input, so where its quantizers belong cannot be "
            f"told ({first_line(fault)}); export it as float"
        ) from None


def fold(model: Classifier) -> None:
    """Fold, in place, every BatchNorm whose only input is a convolution that feeds nothing else.

    The folded network computes what the original computes in evaluation mode; the BatchNorm becomes an identity.
    """
    model.eval()
    modules = dict(model.named_modules())
    for node in trace(model).nodes:
        bn = _module(modules, node, nn.BatchNorm2d)
        before: Any = node.args[0] if bn is not None else None
        conv = _module(modules, before, nn.Conv2d)
        if bn is not None and conv is not None and len(before.users) == 1:
            _set(model, before.target, fuse_conv_bn_eval(conv, bn))
            _set(model, node.target, nn.Identity())


def quantizer_sites(model: Classifier) -> dict[str, str]:
    """Which tensors are quantized, quantizer name → module whose values pass it.

    Every activation's output; the two sides of a sum and the input of a convolution or linear layer where these are
    not an activation's output already; a convolution's output that something else reads (a BatchNorm that is not
    folded, another activation than ReLU), as ONNX Runtime computes in integers only what ends in them. Weights are
    always quantized and not listed.
    """
    modules = dict(model.named_modules())
    sites = {}
    for node in trace(model).nodes:
        if _module(modules, node, Activation) is not None:
            sites[f"{node.target}.output_quantizer"] = node.target
        elif _module(modules, node, nn.Conv2d | nn.Linear) is not None:
            if _module(modules, node.args[0], Activation) is None:
                sites[f"{node.target}.input_quantizer"] = node.target
            if _ends_in_floats(modules, node):
                sites[f"{node.target}.output_quantizer"] = node.target
        elif _module(modules, node, Add) is not None:
            for side, value in zip(("a", "b"), node.args, strict=True):
                if _module(modules, value, Activation) is None:
                    sites[f"{node.target}.{side}_quantizer"] = node.target
    return sites


def image_sites(model: Classifier) -> set[str]:
    """Of `quantizer_sites` those that the image itself passes, as it comes."""
    modules, graph = dict(model.named_modules()), trace(model)
    return {
        f"{node.target}.input_quantizer"
        for node in graph.nodes
        if _module(modules, node, nn.Conv2d | nn.Linear) is not None
        and _behind(modules, node.args[0]).op == "placeholder"
    }


def fused_sites(model: Classifier) -> list[str]:
    """Of `quantizer_sites` those that TensorRT does without: it computes a convolution and what is behind it as one.

    The outputs of convolutions. Of each sum the side that is a convolution's output and goes nowhere else; where both
    are, the one with more convolutions before it. The other side keeps its quantizer, or the sum would be computed in
    floating point.
    """
    modules, graph = dict(model.named_modules()), trace(model)
    depth: dict[Any, int] = {}  # most convolutions on a way from the image
    sites = []
    for node in graph.nodes:
        own = _module(modules, node, nn.Conv2d) is not None
        depth[node] = own + max((depth[before] for before in node.all_input_nodes), default=0)
        if _module(modules, node, Add) is not None:
            sides = {
                f"{node.target}.{side}_quantizer": depth[value]
                for side, value in zip(("a", "b"), node.args, strict=True)
                if _fuses(modules, value)
            }
            if sides:
                sites.append(max(sides, key=lambda site: sides[site]))
        elif own and _ends_in_floats(modules, node):
            sites.append(f"{node.target}.output_quantizer")
    return sites


def site_layers(model: Classifier) -> dict[str, set[str]]:
    """Each of `quantizer_sites` → the convolutions and linear layers that it is there for.

    Those that read the tensor. A sum is there for the layers whose outputs it adds, for those that read it where it
    adds none's.
    """
    modules, graph = dict(model.named_modules()), trace(model)
    named = {str(node.target): node for node in graph.nodes if node.op == "call_module"}
    serves = {}
    for site, target in quantizer_sites(model).items():
        node = named[target]
        if _module(modules, node, Activation) is not None:
            serves[site] = _readers(modules, node)
        elif _module(modules, node, Add) is not None:
            serves[site] = _adds(modules, node)
        else:
            serves[site] = {target}
    return serves


def _adds(modules: dict[str, nn.Module], add: fx.Node) -> set[str]:
    """The layers whose outputs a sum adds, else those that read the sum."""
    sides = [_behind(modules, side) for side in add.args]
    layers = {str(side.target) for side in sides if _module(modules, side, nn.Conv2d | nn.Linear) is not None}
    return layers or _readers(modules, add)


def _readers(modules: dict[str, nn.Module], node: fx.Node) -> set[str]:
    """The layers that read a tensor, through whatever keeps no quantizer of its own; of a sum those it is there for."""
    layers: set[str] = set()
    for user in node.users:
        if _module(modules, user, nn.Conv2d | nn.Linear) is not None:
            layers.add(str(user.target))
        elif _module(modules, user, Add) is not None:
            layers |= _adds(modules, user)
        else:
            layers |= _readers(modules, user)
    return layers


def _ends_in_floats(modules: dict[str, nn.Module], node: fx.Node) -> bool:
    """Whether a convolution's output is read by what is neither quantized nor quantizes it itself."""
    if _module(modules, node, nn.Conv2d) is None:
        return False
    quantized = (Activation, Add, nn.Conv2d, nn.Linear)
    return any(_module(modules, user, quantized) is None for user in _users(modules, node))


def _users(modules: dict[str, nn.Module], node: fx.Node) -> list[fx.Node]:
    """What reads a tensor, identities passed over; none is the network's output."""
    readers = []
    for user in node.users:
        if user.op != "output":
            readers += _users(modules, user) if _module(modules, user, nn.Identity) is not None else [user]
    return readers


def _fuses(modules: dict[str, nn.Module], value: Any) -> bool:
    """Whether a tensor is a convolution's output that goes nowhere else."""
    while _module(modules, value, nn.Identity) is not None and len(value.users) == 1:
        value = value.args[0]
    return _module(modules, value, nn.Conv2d) is not None and len(value.users) == 1


def _behind(modules: dict[str, nn.Module], node: Any) -> fx.Node:
    """Where a tensor comes from, identities left out: a folded BatchNorm is one."""
    while _module(modules, node, nn.Identity) is not None:
        node = node.args[0]
    return node


def _module(modules: dict[str, nn.Module], node: Any, kind: Any) -> Any:
    """The module that a node calls, if it is of that kind."""
    if not isinstance(node, fx.Node) or node.op != "call_module":
        return None
    module = modules[str(node.target)]
    return module if isinstance(module, kind) else None


def _set(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, module)
