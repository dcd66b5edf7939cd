"""Where quantizers belong, read off the graph of a network's operations, and which layers each of them serves."""

from typing import Any

import torch
from torch import fx, nn

from compress.networks.base import Activation, Add
from compress.quantization.graph_network import BoundedReLU, GraphNetwork, MatMul, is_getitem, readers

aten = torch.ops.aten
LAYERS = nn.Conv2d | nn.Linear
RELUS = Activation | BoundedReLU
#: Operations that only move values or choose among them: what is on a grid stays on it.
MOVES = frozenset(
    {
        aten.chunk.default,
        aten.clone.default,
        aten.contiguous.default,
        aten.expand.default,
        aten.flatten.using_ints,
        aten.max_pool2d.default,
        aten.permute.default,
        aten.reshape.default,
        aten.select.int,
        aten.slice.Tensor,
        aten.split.Tensor,
        aten.squeeze.default,
        aten.squeeze.dim,
        aten.transpose.int,
        aten.unbind.int,
        aten.unflatten.int,
        aten.unsqueeze.default,
        aten.view.default,
    }
)
#: Operations that every runtime computes in floating point, and whose input is not worth rounding: a sum that one of
#: them reads is a residual stream of tokens.
FLOATING = frozenset({aten.layer_norm.default, aten.rms_norm.default, aten.softmax.int})


def quantizer_sites(model: GraphNetwork) -> dict[str, str]:
    """Which tensors are quantized, quantizer name → module whose values pass it.

    Every ReLU's output; the two sides of a residual sum, unless tokens are added, and of a product; the input of a
    convolution or linear layer where it is not on a ReLU's grid already; a convolution's output that something else
    reads (a BatchNorm that is not folded, another activation than ReLU), as ONNX Runtime computes in integers only what
    ends in them. Weights are always quantized and not listed.
    """
    sites = {}
    for node in model.deciding():
        target = str(node.target)
        if model.call(node, RELUS) is not None:
            sites[f"{target}.output_quantizer"] = target
        elif model.call(node, LAYERS) is not None:
            if not _on_a_grid(model, node.args[0]):
                sites[f"{target}.input_quantizer"] = target
            if _ends_in_floats(model, node):
                sites[f"{target}.output_quantizer"] = target
        elif model.call(node, MatMul) is not None:
            sites |= {f"{target}.{side}_quantizer": target for side, _ in _sides(node, _off_grids(model, node))}
        elif model.call(node, Add) is not None and _is_quantized_sum(model, node):
            relus = [model.call(value, RELUS) is None for value in node.args]
            sites |= {f"{target}.{side}_quantizer": target for side, _ in _sides(node, relus)}
    return sites


def image_sites(model: GraphNetwork) -> set[str]:
    """Of `quantizer_sites` those that the image itself passes, as it comes."""
    return {
        f"{node.target}.input_quantizer"
        for node in model.deciding()
        if model.call(node, LAYERS) is not None and node.args[0].op == "placeholder"
    }


def fused_sites(model: GraphNetwork) -> list[str]:
    """Of `quantizer_sites` those that TensorRT does without: it computes a convolution and what is behind it as one.

    The outputs of convolutions. Of each sum the side that is a convolution's output and goes nowhere else; where both
    are, the one with more convolutions before it. The other side keeps its quantizer, or the sum would be computed in
    floating point.
    """
    depth: dict[fx.Node, int] = {}  # most convolutions on a way from the image
    sites = []
    for node in model.deciding():
        own = model.call(node, nn.Conv2d) is not None
        depth[node] = own + max((depth[before] for before in node.all_input_nodes), default=0)
        if model.call(node, Add) is not None and _is_quantized_sum(model, node):
            fuses = [model.call(value, nn.Conv2d) is not None and len(readers(value)) == 1 for value in node.args]
            sides = {f"{node.target}.{side}_quantizer": depth[value] for side, value in _sides(node, fuses)}
            if sides:
                sites.append(max(sides, key=lambda site: sides[site]))
        elif own and _ends_in_floats(model, node):
            sites.append(f"{node.target}.output_quantizer")
    return sites


def site_layers(model: GraphNetwork) -> dict[str, set[str]]:
    """Each of `quantizer_sites` → the convolutions, linear layers and products that it is there for.

    Those that read the tensor. A sum is there for the layers whose outputs it adds, for those that read it where it
    adds none's.
    """
    named: dict[str, fx.Node] = {}
    for node in model.deciding():
        if node.op == "call_module":
            named.setdefault(str(node.target), node)
    serves = {}
    for site, target in quantizer_sites(model).items():
        node = named[target]
        if model.call(node, RELUS) is not None:
            serves[site] = _readers(model, node)
        elif model.call(node, Add) is not None:
            serves[site] = _adds(model, node)
        else:
            serves[site] = {target}
    return serves


def _sides(node: fx.Node, chosen: "list[bool]") -> "list[tuple[str, Any]]":
    """Those of the two inputs of a sum or product that are chosen, by the names of their quantizers."""
    pairs = zip(("a", "b"), node.args, chosen, strict=True)
    return [(side, value) for side, value, is_chosen in pairs if is_chosen]


def _off_grids(model: GraphNetwork, node: fx.Node) -> "list[bool]":
    return [not _on_a_grid(model, value) for value in node.args]


def _on_a_grid(model: GraphNetwork, value: Any) -> bool:
    """Whether a tensor holds nothing but values of a quantized ReLU, moved or chosen among."""
    while not isinstance(model.call(value), RELUS):
        is_move = value.op == "call_function" and (value.target in MOVES or is_getitem(value))
        if not is_move and model.call(value, nn.Dropout) is None:
            return False
        value = value.args[0]
    return True


def _is_quantized_sum(model: GraphNetwork, add: fx.Node) -> bool:
    """Whether no reader of a sum, values moved in between, computes in floating point whatever it is given."""
    return all(reader.target not in FLOATING for reader in _behind_moves(add, set()))


def _behind_moves(node: fx.Node, seen: "set[fx.Node]") -> "set[fx.Node]":
    for user in readers(node):
        if user not in seen:
            seen.add(user)
            if user.target in MOVES or is_getitem(user):
                _behind_moves(user, seen)
    return seen


def _adds(model: GraphNetwork, add: fx.Node) -> set[str]:
    """The layers whose outputs a sum adds, else those that read the sum."""
    return _added(model, add) or _readers(model, add)


def _readers(model: GraphNetwork, node: fx.Node) -> set[str]:
    """The layers that read a tensor, through whatever keeps no quantizer of its own; of a sum those it is there for."""
    layers: set[str] = set()
    waiting, seen = [node], {node}
    while waiting:
        for user in readers(waiting.pop()):
            if user in seen:
                continue
            seen.add(user)
            if model.call(user, LAYERS | MatMul) is not None:
                layers.add(str(user.target))
            elif model.call(user, Add) is not None and (added := _added(model, user)):
                layers |= added
            else:
                waiting.append(user)
    return layers


def _added(model: GraphNetwork, add: fx.Node) -> set[str]:
    return {str(side.target) for side in add.args if model.call(side, LAYERS) is not None}  # type: ignore[union-attr]


def _ends_in_floats(model: GraphNetwork, node: fx.Node) -> bool:
    """Whether a convolution's output is read by what is neither quantized nor quantizes it itself."""
    return model.call(node, nn.Conv2d) is not None and not all(_quantizes(model, user) for user in readers(node))


def _quantizes(model: GraphNetwork, node: fx.Node) -> bool:
    if model.call(node, Add) is not None:
        return _is_quantized_sum(model, node)
    return model.call(node, RELUS | LAYERS) is not None
