"""A network over ranks: called with the whole batch, it computes this rank's rows and gives those of all."""

from collections.abc import Iterator, Sequence
from typing import cast, overload

from torch import Tensor

from compress.networks.base import Classifier, Features
from compress.networks.sync_batchnorm import synchronise
from compress.numerics import ranks


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
        found = self.network.forward_features(x[ranks.share(len(x))])
        stages = cast("tuple[Tensor, ...]", _Stages(found.stages, counts))
        return Features(ranks.gather_rows(found.logits, counts), ranks.gather_rows(found.pooled, counts), stages)

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


def exchange(x: Tensor) -> Tensor:
    """Rows (B,…) of which every rank has its own right → all of them, from where they are right."""
    return ranks.gather_rows(x[ranks.share(len(x))], ranks.shares(len(x)))
