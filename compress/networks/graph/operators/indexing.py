"""Values by their places, places by values, and conditions."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from compress.networks.graph import Node, Operator
from compress.networks.graph.operators.operands import TYPES, checked_index, numbers

#: ONNX's names of what becomes of several values at a place → torch's
REDUCTIONS_OF_SCATTER = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def _compared(function: Callable[..., Tensor]) -> Operator:
    return Operator(lambda node, *values: function(*values))


def _mod(node: Node, a: Tensor, b: Tensor) -> Tensor:
    """With the sign of `a` where `fmod` is set, else with that of `b`."""
    return torch.fmod(a, b) if node.whole("fmod", 0) else torch.remainder(a, b)


def _range(node: Node, start: Tensor, limit: Tensor, step: Tensor) -> Tensor:
    return torch.arange(start.item(), limit.item(), step.item(), dtype=getattr(start, "dtype", None))


# ------------------------------------------------------------------------------------------- gather, scatter


def _gather_elements(node: Node, x: Tensor, index: Tensor) -> Tensor:
    axis = node.whole("axis", 0) % x.ndim
    return x.gather(axis, checked_index(index, x.shape[axis]))


def _scatter_elements(node: Node, x: Tensor, index: Tensor, updates: Tensor) -> Tensor:
    axis = node.whole("axis", 0) % x.ndim
    places, reduction = checked_index(index, x.shape[axis]), node.text("reduction", "none")
    if reduction == "none":
        return x.scatter(axis, places, updates)
    return x.scatter_reduce(axis, places, updates, _reduction(reduction))


def _reduction(name: str) -> str:
    if name not in REDUCTIONS_OF_SCATTER:
        raise ValueError(f"reduction {name} is not supported")
    return REDUCTIONS_OF_SCATTER[name]


def _rows(index: Tensor, sizes: Sequence[int]) -> Tensor:
    """Places of several coordinates (…,k) as places (…) along one axis, over which those of `sizes` are laid."""
    row = torch.zeros_like(index[..., 0], dtype=torch.int64)
    for axis, size in enumerate(sizes):
        row = row * size + checked_index(index[..., axis], size)
    return row


def _gather_nd(node: Node, x: Tensor, index: Tensor) -> Tensor:
    """x (batch…, size…, rest…), index (batch…, place…, k) → (batch…, place…, rest…)."""
    batch, count = node.whole("batch_dims", 0), index.shape[-1]
    sizes, rest = x.shape[batch : batch + count], x.shape[batch + count :]
    rows = _rows(index, sizes)
    if not batch:
        return x.reshape(-1, *rest)[rows]
    each = torch.arange(x.shape[:batch].numel(), device=x.device).reshape(*x.shape[:batch], *[1] * (rows.ndim - batch))
    return x.flatten(0, batch - 1).reshape(each.numel(), -1, *rest)[each, rows]


def _scatter_nd(node: Node, x: Tensor, index: Tensor, updates: Tensor) -> Tensor:
    """x (size…, rest…), index (place…, k), updates (place…, rest…)."""
    count, reduction = index.shape[-1], node.text("reduction", "none")
    rows, rest = _rows(index, x.shape[:count]).reshape(-1), x.shape[count:]
    laid, values = x.reshape(-1, *rest), updates.reshape(-1, *rest)
    if reduction == "none":
        return laid.index_put((rows,), values).reshape(x.shape)
    places = rows.reshape(-1, *[1] * len(rest)).expand(values.shape)
    return laid.scatter_reduce(0, places, values, _reduction(reduction)).reshape(x.shape)


def _compress(node: Node, x: Tensor, condition: Tensor) -> Tensor:
    places = condition.nonzero().reshape(-1)
    if "axis" not in node.attributes:
        return x.reshape(-1).index_select(0, places)
    return x.index_select(node.whole("axis", 0) % x.ndim, places)


# ------------------------------------------------------------------------------------------- order, places


def _top_k(node: Node, x: Tensor, k: "Tensor | None" = None) -> tuple[Tensor, Tensor]:
    """Of equal values the first, as ONNX Runtime takes them; `k` is an attribute before opset 10."""
    axis, count = node.whole("axis", -1) % x.ndim, node.whole("k", 0) if k is None else numbers(k)[0]
    if count > x.shape[axis]:
        raise ValueError(f"k = {count} of {x.shape[axis]} values")
    values, places = x.sort(dim=axis, descending=bool(node.whole("largest", 1)), stable=True)
    return values.narrow(axis, 0, count), places.narrow(axis, 0, count)


def _cumulative_sum(node: Node, x: Tensor, axis: Tensor) -> Tensor:
    along = numbers(axis)[0] % x.ndim
    backwards = node.whole("reverse", 0)
    x = x.flip(along) if backwards else x
    total = x.cumsum(along, dtype=x.dtype)
    total = total - x if node.whole("exclusive", 0) else total
    return total.flip(along) if backwards else total


def _triangle(node: Node, x: Tensor, diagonal: "Tensor | None" = None) -> Tensor:
    offset = 0 if diagonal is None else numbers(diagonal)[0]
    return x.triu(offset) if node.whole("upper", 1) else x.tril(offset)


def _one_hot(node: Node, index: Tensor, depth: Tensor, values: Tensor) -> Tensor:
    """`values`: off, on. An index outside of the depth is on nowhere."""
    count, axis = numbers(depth)[0], node.whole("axis", -1)
    places = index.to(torch.int64).unsqueeze(axis)
    shape = [1] * places.ndim
    shape[axis] = count
    classes = torch.arange(count, device=index.device).reshape(shape)
    return torch.where((places == classes) | (places + count == classes), values[1], values[0])


def _eye_like(node: Node, x: Tensor) -> Tensor:
    kind = node.whole("dtype", 0)
    if kind and kind not in TYPES:
        raise ValueError(f"dtype = {kind} is not supported")
    rows, columns = (torch.arange(size, device=x.device) for size in x.shape)
    return (columns - rows[:, None] == node.whole("k", 0)).to(TYPES[kind] if kind else x.dtype)


INDEXING = {
    "And": _compared(torch.logical_and),
    "CastLike": Operator(lambda node, x, like: x.to(like.dtype), ignores="saturate round_mode"),
    "Compress": Operator(_compress, "axis"),
    "CumSum": Operator(_cumulative_sum, "exclusive reverse", numbers=(1,)),
    "Equal": _compared(torch.eq),
    "EyeLike": Operator(_eye_like, "dtype k"),
    "GatherElements": Operator(_gather_elements, "axis"),
    "GatherND": Operator(_gather_nd, "batch_dims"),
    "Greater": _compared(torch.gt),
    "GreaterOrEqual": _compared(torch.ge),
    "Less": _compared(torch.lt),
    "LessOrEqual": _compared(torch.le),
    "Mod": Operator(_mod, "fmod"),
    "NonZero": Operator(lambda node, x: x.nonzero().T.contiguous()),
    "Not": _compared(torch.logical_not),
    "OneHot": Operator(_one_hot, "axis", numbers=(1,)),
    "Or": _compared(torch.logical_or),
    "Range": Operator(_range, numbers=(0, 1, 2)),
    "Scatter": Operator(_scatter_elements, "axis"),
    "ScatterElements": Operator(_scatter_elements, "axis reduction"),
    "ScatterND": Operator(_scatter_nd, "reduction"),
    "Size": Operator(lambda node, x: torch.tensor(x.numel())),
    "Tile": Operator(lambda node, x, repeats: x.repeat(numbers(repeats)), numbers=(1, 2)),
    "TopK": Operator(_top_k, "axis k largest sorted", all_outputs=True, numbers=(1,)),
    "Trilu": Operator(_triangle, "upper", numbers=(1,)),
    "Where": Operator(lambda node, condition, a, b: torch.where(condition, a, b)),
    "Xor": _compared(torch.logical_xor),
}
