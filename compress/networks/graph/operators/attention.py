"""Attention and rotary embedding, of tensors with heads (B,H,L,D) or with them side by side (B,L,H·D)."""

import math

import torch
from torch import Tensor

from compress.networks.graph import Node, Operator
from compress.networks.graph.operators.operands import TYPES

#: Dimensions of a tensor whose heads lie side by side, and of one whose heads are an axis
MERGED, SPLIT = 3, 4


def _attention(
    node: Node,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: "Tensor | None" = None,
    past_key: "Tensor | None" = None,
    past_value: "Tensor | None" = None,
    lengths: "Tensor | None" = None,
) -> Tensor:
    """softmax(q·kᵀ) · v; a row whose keys are all masked gives zeros. Keys of earlier calls are refused."""
    for name, values in (("past_key", past_key), ("past_value", past_value), ("nonpad_kv_seqlen", lengths)):
        if values is not None:
            raise ValueError(f"input {name} is not supported")
    if TYPES.get(node.whole("softmax_precision", 1)) is not torch.float32:
        raise ValueError(f"softmax_precision = {node.whole('softmax_precision', 1)} is not supported")
    merged = query.ndim == MERGED
    query = _by_head(query, node.whole("q_num_heads", 0))
    key, value = _by_head(key, node.whole("kv_num_heads", 0)), _by_head(value, node.whole("kv_num_heads", 0))
    if query.shape[1] != key.shape[1]:  # a group of queries shares a head of keys
        key = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
        value = value.repeat_interleave(query.shape[1] // value.shape[1], 1)
    scale = math.sqrt(node.number("scale", 1 / math.sqrt(query.shape[-1])))
    scores = (query * scale) @ (key * scale).mT
    if cap := node.number("softcap", 0.0):
        scores = cap * (scores / cap).tanh()
    bias = _bias(node, mask, scores)
    closed = bias.isneginf().all(-1, keepdim=True)
    weights = torch.softmax(scores + bias.masked_fill(closed, 0), -1)  # a row of -inf alone has no gradient
    attended = weights.masked_fill(closed, 0) @ value
    return attended.transpose(1, 2).flatten(2) if merged else attended


def _by_head(x: Tensor, heads: int) -> Tensor:
    if x.ndim == SPLIT:
        return x
    if x.ndim != MERGED or not heads:
        raise ValueError(f"{x.ndim} dimensions and {heads} heads are not supported")
    return x.unflatten(2, (heads, -1)).transpose(1, 2)


def _bias(node: Node, mask: "Tensor | None", scores: Tensor) -> Tensor:
    """What is added to scores: the mask, what it does not reach, and what lies ahead where it is causal."""
    rows, columns = scores.shape[-2:]
    bias = scores.new_zeros((rows, columns))
    if mask is not None:
        missing = columns - mask.shape[-1]
        if mask.dtype == torch.bool:
            mask = torch.zeros_like(mask, dtype=scores.dtype).masked_fill(~mask, -math.inf)
        bias = bias + torch.nn.functional.pad(mask, (0, missing), value=-math.inf)
    if node.whole("is_causal", 0):
        ahead = torch.ones(rows, columns, dtype=torch.bool, device=scores.device).triu(1)
        bias = bias.masked_fill(ahead, -math.inf)
    return bias


def _rotary_embedding(node: Node, x: Tensor, cosines: Tensor, sines: Tensor, places: "Tensor | None" = None) -> Tensor:
    """Pairs of values turned by the angle of their place; caches (places, D/2), or (B,L,D/2) without places."""
    heads = _by_head(x, node.whole("num_heads", 0))
    turned = node.whole("rotary_embedding_dim", 0) or heads.shape[-1]
    if places is not None:
        cosines, sines = cosines[places], sines[places]
    cosines, sines = cosines.unsqueeze(1), sines.unsqueeze(1)
    part, rest = heads[..., :turned], heads[..., turned:]
    if node.whole("interleaved", 0):
        first, second = part[..., 0::2], part[..., 1::2]
    else:
        first, second = part.chunk(2, -1)
    real, imaginary = cosines * first - sines * second, sines * first + cosines * second
    if node.whole("interleaved", 0):
        part = torch.stack([real, imaginary], -1).flatten(-2)
    else:
        part = torch.cat([real, imaginary], -1)
    result = torch.cat([part, rest], -1)
    return result.transpose(1, 2).flatten(2) if x.ndim == MERGED else result


ATTENTION = {
    "Attention": Operator(_attention, "is_causal kv_num_heads q_num_heads scale softcap softmax_precision"),
    "RotaryEmbedding": Operator(_rotary_embedding, "interleaved num_heads rotary_embedding_dim"),
}
