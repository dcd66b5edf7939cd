"""A network over several ranks: each computes its rows of a batch, and BatchNorm's batch is that of all together.

On any device; torch's own synchronised BatchNorm is for GPUs alone.
"""

from collections.abc import Iterator, Sequence
from typing import Any, cast, overload

import torch
from torch import Tensor, nn

from compress.networks.base import Classifier, Features
from compress.numerics import ranks
from edge.core.errors import CompressError


def synchronise(network: nn.Module) -> nn.Module:
    """Let every BatchNorm of the network see the whole batch, in place; weights, buffers and their names stay.

    With one rank the network stays as it is.
    """
    if ranks.world() == 1:
        return network
    for name, module in network.named_modules():
        if not isinstance(module, nn.modules.batchnorm._BatchNorm) or type(module) in SYNCHRONISED.values():
            continue
        if type(module) not in SYNCHRONISED:
            raise CompressError(
                f"{name}: a {type(module).__name__} cannot normalise over {ranks.world()} ranks; train on one"
            )
        module.__class__ = SYNCHRONISED[type(module)]  # as torch's lazy modules do: who holds the module keeps it
    return network


class _Synchronised(nn.modules.batchnorm._BatchNorm):
    """In training mode normalised by the mean and variance of all ranks' rows, else as ever. (B,C,…) → the same."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training and self.running_mean is not None:
            return super().forward(x)
        self._check_input_dim(x)
        normalised, mean, variance, count = _Normalise.apply(x, self.weight, self.bias, self.eps)
        if self.training and self.running_mean is not None:
            # as torch keeps them: the unbiased variance, a plain mean where momentum is None
            assert self.running_var is not None and self.num_batches_tracked is not None
            self.num_batches_tracked.add_(1)
            weight = self.momentum if self.momentum is not None else 1 / self.num_batches_tracked.to(mean.dtype)
            unbiased = variance * (count / (count - 1).clamp(min=1))
            with torch.no_grad():
                for running, value in ((self.running_mean, mean), (self.running_var, unbiased)):
                    running.lerp_(value.to(running.dtype), weight)
        normal: Tensor = normalised
        return normal


class SynchronisedBatchNorm1d(_Synchronised, nn.BatchNorm1d):
    """(B,C) or (B,C,L)."""


class SynchronisedBatchNorm2d(_Synchronised, nn.BatchNorm2d):
    """(B,C,H,W)."""


SYNCHRONISED: "dict[type[nn.modules.batchnorm._BatchNorm], type[_Synchronised]]" = {
    nn.BatchNorm1d: SynchronisedBatchNorm1d,
    nn.BatchNorm2d: SynchronisedBatchNorm2d,
}


class _Normalise(torch.autograd.Function):
    """x̂ = (x − μ) / √(σ² + ε), y = γ x̂ + β, with μ and σ² over all ranks (Ioffe & Szegedy 2015, §3).

    Backward: ∂L/∂x = γ / √(σ² + ε) (g − mean g − x̂ mean(g x̂)), g = ∂L/∂y, the means over all ranks; those of γ and β
    are this rank's part.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: "Tensor | None", bias: "Tensor | None", eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        mean, variance, count = _statistics(x)
        ctx.save_for_backward(x, weight, mean, torch.rsqrt(variance + eps), count)
        ctx.mark_non_differentiable(mean, variance, count)
        # not in training mode: the statistics are given
        normalised = nn.functional.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps)
        return normalised, mean, variance, count

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> "tuple[Tensor, Tensor | None, Tensor | None, None]":
        x, weight, mean, scale, count = ctx.saved_tensors
        gradient = gradients[0].to(mean.dtype)
        normalised = (x - _column(mean, x)) * _column(scale, x)
        of_bias, of_weight = gradient.sum(_others(x)), (gradient * normalised).sum(_others(x))
        means = torch.cat([of_bias, of_weight])
        ranks.total([means])
        mean_g, mean_gx = (_column(part / count, x) for part in means.chunk(2))
        of_x = (gradient - mean_g - normalised * mean_gx) * _column(scale if weight is None else scale * weight, x)
        of = (of_weight.to(weight.dtype), of_bias.to(weight.dtype)) if weight is not None else (None, None)
        return of_x.to(x.dtype), *of, None


def _statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and biased variance by channel (C,), and the number of values a channel (), over all ranks.

    Each rank gives its own mean and variance, not sums of squares, which would cancel (Chan et al. 1983, eq. 2.1).
    """
    values = x.detach().to(torch.promote_types(x.dtype, torch.float32))
    channels, count = x.shape[1], x.numel() // x.shape[1]
    mean, variance = values.new_zeros(2, channels)
    if count:
        variance, mean = torch.var_mean(values, _others(x), correction=0)
    own = torch.cat([mean, variance, mean.new_full((1,), count)])
    gathered = ranks.gather_rows(own[None], [1] * ranks.world())
    means, variances, counts = gathered.split([channels, channels, 1], 1)
    size = counts.sum()
    mean = (counts * means).sum(0) / size
    return mean, (counts * (variances + (means - mean).square())).sum(0) / size, size


def _others(x: Tensor) -> list[int]:
    """All dimensions but the channels'."""
    return [dim for dim in range(x.ndim) if dim != 1]


def _column(values: Tensor, x: Tensor) -> Tensor:
    """One value a channel (C,), shaped to meet x (B,C,…)."""
    return values.view(1, -1, *[1] * (x.ndim - 2))


class Sharded(Classifier):
    """`network` on the batch of all ranks, which every rank calls with all of its images (B,C,H,W).

    What comes out is what one process would find, on every rank; gradients by weights are a rank's parts of a sum
    (`ranks.reduce_gradients`). Gradients by images are those of this rank's rows and zero elsewhere. So an attack moves
    its own rows alone, every one of its losses is right, and `exchange` puts the images it ends in together.
    """

    def __init__(self, network: Classifier) -> None:
        super().__init__()
        self.network = network
        self.has_features = network.has_features

    def forward_features(self, x: Tensor) -> Features:
        counts = ranks.shares(len(x))
        own = self.network.forward_features(x[ranks.share(len(x))])
        stages = cast("tuple[Tensor, ...]", _Stages(own.stages, counts))
        logits, pooled = (ranks.gather_rows(rows, counts) for rows in (own.logits, own.pooled))
        return Features(logits, pooled, stages, own.rounded)

    def forward(self, x: Tensor) -> Tensor:
        return ranks.gather_rows(self.network(x[ranks.share(len(x))]), ranks.shares(len(x)))


class _Stages(Sequence[Tensor]):
    """Feature maps that are put together when they are read: few objectives do, and they are large."""

    def __init__(self, own: tuple[Tensor, ...], counts: list[int]) -> None:
        self._own, self._counts = own, counts

    def __len__(self) -> int:
        return len(self._own)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Tensor, ...]: ...
    def __getitem__(self, index: "int | slice") -> "Tensor | tuple[Tensor, ...]":
        if isinstance(index, slice):
            return tuple(ranks.gather_rows(stage, self._counts) for stage in self._own[index])
        return ranks.gather_rows(self._own[index], self._counts)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[index] for index in range(len(self)))


def sharded(network: Classifier) -> Classifier:
    """The network over all ranks, its BatchNorm synchronised; with one rank the network itself."""
    if ranks.world() == 1:
        return network
    synchronise(network)
    return Sharded(network)


def exchange_rows(x: Tensor) -> Tensor:
    """Rows (B,…) of which every rank has its own right → all of them, from where they are right."""
    return ranks.gather_rows(x[ranks.share(len(x))], ranks.shares(len(x)))
