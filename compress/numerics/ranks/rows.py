"""A batch over ranks: who has which rows, rows put together with gradients, gradients added up."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, distributed

from compress.numerics.ranks.group import rank, together, world


def shares(rows: int) -> list[int]:
    """How many of a batch's rows each rank has: consecutive ones, differing by one at most."""
    whole, rest = divmod(rows, world())
    return [whole + (number < rest) for number in range(world())]


def share(rows: int) -> slice:
    """Which of a batch's rows are this rank's."""
    counts = shares(rows)
    begin = sum(counts[: rank()])
    return slice(begin, begin + counts[rank()])


def gather_rows(rows: Tensor, counts: "Sequence[int] | None" = None) -> Tensor:
    """Every rank's rows (n_r,…), one below the other, on every rank (Σ n_r,…); `counts` are the n_r where known.

    Every rank goes on to compute the same loss L of all rows. Backward gives a rank ∂L/∂(its own rows) and exchanges
    nothing, so what it finds for a weight before the rows is its part, and ∂L/∂weight is the sum over ranks.
    """
    if world() == 1:
        return rows
    if counts is None:
        sizes = torch.zeros(world(), dtype=torch.int64, device=rows.device)
        sizes[rank()] = len(rows)
        total([sizes])
        counts = sizes.tolist()
    found: Tensor = _Rows.apply(rows, tuple(counts))
    return found


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: tuple[int, ...]) -> Tensor:
        begin = sum(counts[: rank()])
        ctx.own = slice(begin, begin + len(rows))
        return _gathered(rows, counts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0][ctx.own], None


def _gathered(rows: Tensor, counts: tuple[int, ...]) -> Tensor:
    """All rows; the exchange wants equal shapes, so short shares are filled up on the way."""
    channels_last = rows.ndim == 4 and rows.is_contiguous(memory_format=torch.channels_last)
    mine = rows.new_zeros(max(counts), *rows.shape[1:])
    mine[: len(rows)] = rows
    found = [torch.empty_like(mine) for _ in counts]
    with together():
        distributed.all_gather(found, mine)
    whole = torch.cat([part[:count] for part, count in zip(found, counts, strict=True)])
    return whole.contiguous(memory_format=torch.channels_last) if channels_last else whole


def total(tensors: "Sequence[Tensor]") -> None:
    """Each tensor becomes its sum over ranks, in one exchange; the same shapes on every rank."""
    if world() == 1 or not tensors:
        return
    buffer = torch.cat([tensor.flatten() for tensor in tensors])
    with together():
        distributed.all_reduce(buffer)
    with torch.no_grad():
        for tensor, part in zip(tensors, buffer.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))


def reduce_gradients(parts: "Iterable[Tensor]", wholes: "Iterable[Tensor]" = ()) -> None:
    """Bring the gradients to what one process would find, alike on every rank.

    `parts` are weights before `gather_rows`, each rank having found its part: these are added up. `wholes` are weights
    behind it, of which every rank has found the whole gradient: rank 0's counts, so that no last bit sets them apart.
    """
    if world() == 1:
        return
    summed = [weight.grad for weight in parts if weight.grad is not None]
    copied = [weight.grad for weight in wholes if weight.grad is not None]
    if rank() > 0:
        for gradient in copied:
            gradient.zero_()
    total([*summed, *copied])
