"""Several processes as one, started by torchrun: who they are, what they exchange, what happens when one is lost.

Without torchrun's environment there is one rank, and everything here is the identity.
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from compress.numerics import peers
from compress.numerics.peers import Peers
from edge.core import artifact
from edge.core.artifact import Plan, Stage, Work
from edge.core.errors import CompressError, first_line
from edge.core.interrupt import EXIT_CODE, Interrupted

Object = TypeVar("Object")

_peers: "list[Peers]" = []  # of the group that `started` made


class RankLost(CompressError):
    """A process of the group ended before the others."""


def world() -> int:
    """How many processes work together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Which of them this one is, from 0; rank 0 alone prints and writes."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def here() -> torch.device:
    """Where this process computes: the GPU of its LOCAL_RANK, the only one without torchrun, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device()) if world() > 1 else torch.device("cuda")


@contextlib.contextmanager
def started() -> Iterator[None]:
    """Inside, the processes that torchrun started are one group: gloo on CPUs, NCCL between GPUs.

    Ranks above 0 print nothing. When one is lost the others end within seconds, and one of them says so in one line.
    Whatever ends a rank is said by one of them: `SystemExit` takes the place of a fault that another rank has told.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or distributed.is_initialized():
        yield
        return
    watched = _start()
    _peers.append(watched)
    try:
        with contextlib.ExitStack() as quiet:
            if rank() > 0:
                nothing = quiet.enter_context(open(os.devnull, "w"))
                quiet.enter_context(contextlib.redirect_stdout(nothing))
                quiet.enter_context(contextlib.redirect_stderr(nothing))
            yield
        watched.rest()  # before any process ends in peace
        with together():
            distributed.barrier()
        _peers.remove(watched)  # not after a fault: this process then has its own last line to say
    except BaseException as fault:
        watched.rest()
        # what is told in one line carries an exit code: ours, click's
        code = EXIT_CODE if isinstance(fault, Interrupted) else getattr(fault, "exit_code", None)
        common = code is not None and not isinstance(fault, RankLost)
        spoken = (common and rank() > 0 and watched.spoken()) or not watched.first()  # what all find, rank 0 says
        if spoken and code is not None:
            sys.exit(code)
        raise
    finally:
        distributed.destroy_process_group()


def gather(value: Object) -> list[Object]:
    """Every rank's value, in the order of ranks, on every rank; anything that can be pickled."""
    if world() == 1:
        return [value]
    values: list[Any] = [None] * world()
    with together():
        distributed.all_gather_object(values, value)
    return values


def broadcast(value: Object) -> Object:
    """Rank 0's value on every rank; what the others give is not read."""
    if world() == 1:
        return value
    values = [value if rank() == 0 else None]
    with together():
        distributed.broadcast_object_list(values, src=0)
    return values[0]  # type: ignore[return-value]


def largest(value: float) -> float:
    """The largest of the ranks' values, float64; how they agree on what each sees on its own, a signal or a clock."""
    if world() == 1:
        return value
    value_of_all = torch.tensor(value, dtype=torch.float64)
    with together():
        distributed.all_reduce(value_of_all, distributed.ReduceOp.MAX)
    return float(value_of_all)


def instead() -> "str | None":
    """What a process that a signal ends now says in place of its usual line: "" is nothing, None the usual one."""
    return _peers[-1].instead() if _peers else None


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Around every exchange: a lost rank is `RankLost`."""
    try:
        yield
    except RuntimeError as fault:
        text = next(iter(str(fault).splitlines()), "")
        if not any(sign in str(fault).lower() for sign in peers.GONE):
            raise
        ended = _peers[-1].gone(peers.SETTLE_S) if _peers else []
        raise RankLost(peers.lost(ended) if ended else peers.lost((), text.rpartition("] ")[2])) from None


def _start() -> Peers:
    """Join the group that the environment describes."""
    number, size = _number("RANK"), _number("WORLD_SIZE")
    backend = "gloo"
    if torch.cuda.is_available():
        local, gpus = _number("LOCAL_RANK"), torch.cuda.device_count()
        if local >= gpus:
            raise CompressError(f"LOCAL_RANK {local}: this machine has {gpus} GPUs; give --nproc-per-node {gpus}")
        torch.cuda.set_device(local)
        backend = "cpu:gloo,cuda:nccl"
    try:
        store, _, _ = next(distributed.rendezvous("env://", number, size))
        distributed.init_process_group(backend, store=store, rank=number, world_size=size)
    except (RuntimeError, ValueError) as fault:
        raise CompressError(
            f"rank {number} of {size} found no group ({first_line(fault)}); start it with torchrun"
        ) from None
    return Peers(number, gather(peers.home()), store.clone())


def _number(name: str) -> int:
    text = os.environ.get(name, "")
    if not text.isdecimal():
        raise CompressError(f"{name} {text!r}: WORLD_SIZE is set, so a number is needed there; start with torchrun")
    return int(text)


# ----------------------------------------------------------------------------- a batch over ranks


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
    gathered: Tensor = _Rows.apply(rows, tuple(counts))
    return gathered


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
    parts = [torch.empty_like(mine) for _ in counts]
    with together():
        distributed.all_gather(parts, mine)
    whole = torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])
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


# ---------------------------------------------------------------------------------------- a stage


def build(
    out: "Path | str",
    plan: Plan,
    make: Callable[[Work], None],
    *,
    lineage: "Mapping[str, Path] | None" = None,
    keep: Sequence[str] = (),
    replace: bool = False,
) -> Stage:
    """As `artifact.build`, for a `make` in which the ranks work together.

    The others call `make` when rank 0 does, with a folder of their own that is thrown away; the stage's is rank 0's,
    so it need not be within their reach.
    """
    if world() == 1:
        return artifact.build(out, plan, make, lineage=lineage, keep=keep, replace=replace)
    if rank() > 0:
        if broadcast(False):
            with tempfile.TemporaryDirectory() as scratch:
                make(Work(Path(scratch)))
        return broadcast(Stage(Path(out), {}))
    called = False

    def make_together(work: Work) -> None:
        nonlocal called
        called = broadcast(True)
        make(work)

    stage = artifact.build(out, plan, make_together, lineage=lineage, keep=keep, replace=replace)
    if not called:
        broadcast(False)
    return broadcast(stage)
