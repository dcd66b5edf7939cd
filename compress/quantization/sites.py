"""Where quantizers belong, read off the graph of a network's operations, and which layers each of them serves."""

from typing import Any

import torch
from torch import fx, nn

from compress.networks.base import Activation, Add
from compress.quantization.graph_network import MODULE, BoundedReLU, GraphNetwork, MatMul, is_getitem, readers

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
#: Functions that multiply by weights, or two computed tensors, and have no place for quantizers.
FLOAT_PRODUCTS = (
    *("conv1d", "conv2d", "conv3d"),
    *("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
    *("linear", "bilinear"),
    *("matmul", "mm", "mv", "dot"),
    *("bmm", "addmm", "addmv", "addbmm", "baddbmm"),
    *("einsum", "tensordot", "scaled_dot_product_attention"),
    *("lstm", "gru", "rnn_tanh", "rnn_relu"),
    *("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"),
)


def quantizer_sites(model: GraphNetwork) -> dict[str, str]:
    """Which tensors are quantized, quantizer name → module whose values pass it.

    Every ReLU's output, unless ReLUs alone read it; the two sides of a residual sum, unless tokens are added, and of a
    product; the input of a convolution or linear layer where it is not on a ReLU's grid already; a convolution's output
    that something else reads (a BatchNorm that is not folded, another activation than ReLU), as ONNX Runtime computes
    in integers only what ends in them. None that serves no convolution, linear layer or product (`site_layers`).
    Weights are always quantized and not listed.
    """
    sites = _tensors(model)
    serves = _serves(model, sites)
    return {site: target for site, target in sites.items() if serves[site]}


def _tensors(model: GraphNetwork) -> dict[str, str]:
    sites = {}
    for node in model.deciding():
        target = str(node.target)
        if model.call(node, RELUS) is not None:
            if not all(model.call(reader, RELUS) is not None for reader in readers(node)):
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
    """Of `quantizer_sites` those that nothing but the image itself passes, its values moved at most."""
    sees: dict[str, list[bool]] = {}  # a layer may be called on more than the image
    for node in model.deciding():
        if model.call(node, LAYERS) is not None:
            source = _source(model, node.args[0])
            sees.setdefault(f"{node.target}.input_quantizer", []).append(source.op == "placeholder")
    return {site for site, is_image in sees.items() if all(is_image)}


def float_operations(model: GraphNetwork) -> list[str]:
    """What multiplies by weights, or two computed tensors, and is not quantized: "OPERATION in MODULE", in order."""
    found = []
    for node in model.deciding():
        if node.op == "call_function" and MODULE in node.meta and isinstance(node.target, torch._ops.OpOverload):
            name = node.target._schema.name.partition("::")[2]
            if name in FLOAT_PRODUCTS:
                found.append(f"{name} in {node.meta[MODULE] or 'its forward'}")
    return found


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
    return {site: layers for site, layers in _serves(model, _tensors(model)).items() if layers}


def _serves(model: GraphNetwork, sites: dict[str, str]) -> dict[str, set[str]]:
    named: dict[str, fx.Node] = {}
    for node in model.deciding():
        if node.op == "call_module":
            named.setdefault(str(node.target), node)
    serves = {}
    for site, target in sites.items():
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
    return model.call(_source(model, value), RELUS) is not None


def _source(model: GraphNetwork, value: Any) -> Any:
    """The tensor whose values another holds, moved or chosen among; itself where it is computed."""
    while _moves(value) or model.call(value, nn.Dropout) is not None:
        value = value.args[0]
    return value


def _moves(node: fx.Node) -> bool:
    return node.op == "call_function" and (node.target in MOVES or is_getitem(node))


def _is_quantized_sum(model: GraphNetwork, add: fx.Node) -> bool:
    """Whether no reader of a sum, values moved in between, computes in floating point whatever it is given."""
    return all(reader.target not in FLOATING for reader in _behind_moves(add, set()))


def _behind_moves(node: fx.Node, seen: "set[fx.Node]") -> "set[fx.Node]":
    for user in readers(node):
        if user not in seen:
            seen.add(user)
            if _moves(user):
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
