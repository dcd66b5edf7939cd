"""Nodes of constant weights as torch's own layers, so that they are quantized, hooked and named as in any network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from compress.networks.graph import Node


class BatchNorm(_BatchNorm):
    """Of whatever number of dimensions its operand has."""

    def _check_input_dim(self, input: Tensor) -> None:
        pass


@dataclass(frozen=True)
class Layer:
    """`module` computes `node` of its first input; `weights`: the constants in its state, weight then bias.

    `shared`: what tells nodes that are one layer called twice; `follower`: a node that it computes as well.
    """

    node: Node
    module: nn.Module
    weights: tuple[str, ...] = ()
    shared: "tuple[Any, ...] | None" = None
    follower: "Node | None" = None


def layer_of(node: Node, constants: Mapping[str, Tensor], readers: Sequence[Node]) -> "Layer | None":
    """The layer that a node is; None of what stays an operator. `readers`: the nodes that read its output."""
    if not node.inputs or node.inputs[0] in constants:
        return None
    if node.op == "Relu":
        return Layer(node, nn.ReLU())
    if node.op == "Dropout":
        ratio = constants.get(node.inputs[1]) if len(node.inputs) > 1 else None
        return Layer(node, nn.Dropout(node.number("ratio", 0.5) if ratio is None else float(ratio)))
    makers = {"Conv": _conv, "Gemm": _gemm, "BatchNormalization": _batch_norm}
    if not all(name in constants for name in node.inputs[1:] if name):
        return None
    if node.op == "MatMul":
        return _matmul(node, constants, readers)
    maker = makers.get(node.op)
    return None if maker is None else maker(node, constants)


def _conv(node: Node, constants: Mapping[str, Tensor]) -> "Layer | None":
    """Of two dimensions, padded alike on both sides."""
    weight = constants[node.inputs[1]]
    pads = node.ints("pads", [0] * 4)
    if weight.ndim != 4 or pads[:2] != pads[2:] or node.text("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return None
    geometry = (node.ints("strides", [1, 1]), pads[:2], node.ints("dilations", [1, 1]), node.whole("group", 1))
    outputs, inputs, *kernel = weight.shape
    module = nn.Conv2d(
        inputs * geometry[3],
        outputs,
        tuple(kernel),  # type: ignore[arg-type]
        tuple(geometry[0]),  # type: ignore[arg-type]
        tuple(geometry[1]),  # type: ignore[arg-type]
        tuple(geometry[2]),  # type: ignore[arg-type]
        geometry[3],
        bias=False,
        device="meta",
    )
    bias = node.inputs[2] if len(node.inputs) > 2 else ""
    module.weight, module.bias = _learned(weight), _learned(constants[bias]) if bias else None
    names = (node.inputs[1], *([bias] if bias else []))
    return Layer(node, module, names, shared=("Conv", names, str(geometry)))


def _gemm(node: Node, constants: Mapping[str, Tensor]) -> "Layer | None":
    """alpha · x Bᵀ + beta · C, its factors in the weights."""
    weight = constants[node.inputs[1]] * node.number("alpha", 1.0)
    weight = weight if node.whole("transB", 0) else weight.T
    bias = node.inputs[2] if len(node.inputs) > 2 else ""
    if node.whole("transA", 0) or (bias and constants[bias].numel() not in (1, len(weight))):
        return None
    values = (constants[bias] * node.number("beta", 1.0)).reshape(-1).expand(len(weight)) if bias else None
    names = (node.inputs[1], *([bias] if bias else []))
    return Layer(node, _linear(weight, values), names, shared=("Gemm", names, str(sorted(node.attributes.items()))))


def _matmul(node: Node, constants: Mapping[str, Tensor], readers: Sequence[Node]) -> "Layer | None":
    """x W, with the sum of a bias behind it where nothing else reads the product."""
    weight = constants[node.inputs[1]]
    if weight.ndim != 2:
        return None
    follower, bias = None, ""
    if len(readers) == 1 and readers[0].op == "Add":
        others = [name for name in readers[0].inputs if name != node.outputs[0]]
        if len(others) == 1 and others[0] in constants and _is_bias(constants[others[0]], weight.shape[1]):
            follower, bias = readers[0], others[0]
    values = constants[bias].reshape(-1) if bias else None
    names = (node.inputs[1], *([bias] if bias else []))
    return Layer(node, _linear(weight.T, values), names, shared=("MatMul", names), follower=follower)


def _is_bias(values: Tensor, outputs: int) -> bool:
    return values.is_floating_point() and values.ndim > 0 and values.numel() == values.shape[-1] == outputs


def _linear(weight: Tensor, bias: "Tensor | None") -> nn.Linear:
    module = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    module.weight = _learned(weight.contiguous())
    module.bias = None if bias is None else _learned(bias.contiguous())  # type: ignore[assignment]
    return module


def _batch_norm(node: Node, constants: Mapping[str, Tensor]) -> Layer:
    """Its running statistics go on from the file's; ONNX's momentum is the share of the past, torch's of the batch."""
    scale, bias, mean, variance = (constants[name].clone() for name in node.inputs[1:5])
    momentum = 1 - node.number("momentum", 0.9)
    module = BatchNorm(len(scale), node.number("epsilon", 1e-5), momentum if 0 < momentum < 1 else 0.1, device="meta")
    module.weight, module.bias = _learned(scale), _learned(bias)
    module.running_mean, module.running_var = mean, variance
    module.num_batches_tracked = torch.zeros((), dtype=torch.int64)
    names = tuple(node.inputs[1:5])
    return Layer(node, module, names, shared=("BatchNormalization", names, module.eps, module.momentum))


def _learned(values: Tensor) -> nn.Parameter:
    return nn.Parameter(values.detach().clone())
