"""Shapes and places: what moves values, cuts, repeats or counts them."""

import math

import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor
from torch.nn import functional

from compress.networks.graph import Node, Operator
from compress.networks.graph.operators.operands import TYPES, checked_index, numbers, stated


def _reshape(node: Node, x: Tensor, shape: Tensor) -> Tensor:
    """0 keeps a size, unless `allowzero`; −1 is what is left."""
    keep = not node.whole("allowzero", 0)
    sizes = [x.shape[k] if size == 0 and keep else size for k, size in enumerate(numbers(shape))]
    return x.reshape(sizes)


def _constant_of_shape(node: Node, shape: Tensor) -> Tensor:
    """Half precision is carried in float32 (`rounding`)."""
    fill = node.attributes.get("value")
    if fill is None:
        return torch.zeros(numbers(shape))
    if fill.data_type not in TYPES:
        raise ValueError(f"a value of type {TensorProto.DataType.Name(fill.data_type)} is not supported")
    kind = TYPES[fill.data_type]
    value = numpy_helper.to_array(fill).reshape(-1)[0]
    number = float(value) if kind.is_floating_point else int(value)
    return torch.full(numbers(shape), number, dtype=kind)


def _flatten(node: Node, x: Tensor) -> Tensor:
    axis = node.whole("axis", 1)
    return x.reshape(math.prod(x.shape[: axis if axis >= 0 else axis + x.ndim]), -1)


def _squeeze(node: Node, x: Tensor, axes: "Tensor | None" = None) -> Tensor:
    chosen = stated(node, "axes", axes)
    if not chosen:
        return x.squeeze()
    if any(x.shape[axis] != 1 for axis in chosen):
        raise ValueError(f"axes {chosen} of {list(x.shape)} are not all of size 1")
    return x.squeeze(tuple(chosen))


def _unsqueeze(node: Node, x: Tensor, axes: "Tensor | None" = None) -> Tensor:
    chosen = stated(node, "axes", axes) or []
    for axis in sorted(axis % (x.ndim + len(chosen)) for axis in chosen):
        x = x.unsqueeze(axis)
    return x


def _split(node: Node, x: Tensor, sizes: "Tensor | None" = None) -> tuple[Tensor, ...]:
    axis, count = node.whole("axis", 0), len(node.outputs)
    lengths = stated(node, "split", sizes)
    parts = x.split(-(-x.shape[axis] // count) if lengths is None else lengths, axis)
    if len(parts) != count or node.whole("num_outputs", count) != count:
        raise ValueError(f"{x.shape[axis]} rows do not make {count} outputs")
    return parts


def _slice(
    node: Node,
    x: Tensor,
    starts: "Tensor | None" = None,
    ends: "Tensor | None" = None,
    axes: "Tensor | None" = None,
    steps: "Tensor | None" = None,
) -> Tensor:
    first, last = stated(node, "starts", starts) or [], stated(node, "ends", ends) or []
    along = stated(node, "axes", axes) or list(range(len(first)))
    by = stated(node, "steps", steps) or [1] * len(first)
    parts = [slice(None)] * x.ndim
    for axis, *bounds in zip(along, first, last, by, strict=True):
        if bounds[2] < 0:  # torch takes no step backwards
            places = range(*slice(*bounds).indices(x.shape[axis]))
            x = x.index_select(axis, torch.tensor(places, dtype=torch.int64, device=x.device))
        else:
            parts[axis] = slice(*bounds)
    return x[tuple(parts)]


def _pad(
    node: Node,
    x: Tensor,
    pads: "Tensor | None" = None,
    value: "Tensor | None" = None,
    axes: "Tensor | None" = None,
) -> Tensor:
    amounts = stated(node, "pads", pads) or []
    along = stated(node, "axes", axes) or list(range(x.ndim))
    sides = {axis % x.ndim: (amounts[k], amounts[k + len(along)]) for k, axis in enumerate(along)}
    pairs = [side for axis in reversed(range(x.ndim)) for side in sides.get(axis, (0, 0))]
    mode = node.text("mode", "constant")
    if mode == "constant":
        return functional.pad(x, pairs, value=node.number("value", 0.0) if value is None else value.item())
    if mode not in ("reflect", "edge", "wrap"):
        raise ValueError(f"mode {mode} is not supported")
    for axis, (before, behind) in sides.items():  # what is cut off is not repeated
        x = x.narrow(axis, max(-before, 0), x.shape[axis] - max(-before, 0) - max(-behind, 0))
        places = _repeated(x.shape[axis], max(before, 0), max(behind, 0), mode)
        x = x.index_select(axis, places.to(x.device))
    return x


def _repeated(size: int, before: int, behind: int, mode: str) -> Tensor:
    """Places along an axis, in an image of that size which goes on on both sides."""
    places = torch.arange(-before, size + behind)
    if mode == "edge":
        return places.clamp(0, size - 1)
    if mode == "wrap" or size == 1:
        return places % size
    places = places % (2 * size - 2)
    return torch.where(places < size, places, 2 * size - 2 - places)


def _gather(node: Node, x: Tensor, index: Tensor) -> Tensor:
    axis = node.whole("axis", 0) % x.ndim
    flat = checked_index(index.reshape(-1), x.shape[axis])
    return x.index_select(axis, flat).reshape([*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]])


def _shape(node: Node, x: Tensor) -> Tensor:
    return torch.tensor(x.shape)[node.attributes.get("start", 0) : node.attributes.get("end")]


def _depth_to_space(node: Node, x: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    block = node.whole("blocksize", 1)
    if node.text("mode", "DCR") not in ("DCR", "CRD"):
        raise ValueError(f"mode {node.text('mode', 'DCR')} is not supported")
    if node.text("mode", "DCR") == "CRD":
        return functional.pixel_shuffle(x, block)
    blocks = x.reshape(batch, block, block, channels // block**2, height, width).permute(0, 3, 4, 1, 5, 2)
    return blocks.reshape(batch, channels // block**2, height * block, width * block)


def _space_to_depth(node: Node, x: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    block = node.whole("blocksize", 1)
    blocks = x.reshape(batch, channels, height // block, block, width // block, block).permute(0, 3, 5, 1, 2, 4)
    return blocks.reshape(batch, channels * block**2, height // block, width // block)


SHAPES = {
    "Concat": Operator(lambda node, *parts: torch.cat(parts, node.whole("axis", 0)), "axis"),
    "ConstantOfShape": Operator(_constant_of_shape, "value", numbers=(0,)),
    "DepthToSpace": Operator(_depth_to_space, "blocksize mode"),
    "Expand": Operator(
        lambda node, x, shape: x.expand(torch.broadcast_shapes(x.shape, tuple(numbers(shape)))), numbers=(1,)
    ),
    "Flatten": Operator(_flatten, "axis"),
    "Gather": Operator(_gather, "axis"),
    "Pad": Operator(_pad, "mode pads value", numbers=(1, 2, 3)),
    "Reshape": Operator(_reshape, "allowzero", numbers=(1,)),
    "Shape": Operator(_shape, "start end"),
    "Slice": Operator(_slice, "axes ends starts", numbers=(1, 2, 3, 4)),
    "SpaceToDepth": Operator(_space_to_depth, "blocksize"),
    "Split": Operator(_split, "axis num_outputs split", all_outputs=True, numbers=(1,)),
    "Squeeze": Operator(_squeeze, "axes", numbers=(1,)),
    "Transpose": Operator(lambda node, x: x.permute(node.ints("perm", range(x.ndim)[::-1])), "perm"),
    "Unsqueeze": Operator(_unsqueeze, "axes", numbers=(1,)),
}
