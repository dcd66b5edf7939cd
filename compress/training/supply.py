"""Which images a step trains on: those of the training split, with a fixed share of extra ones where there are any."""

import numpy as np
import torch
from torch import Tensor

from compress.data.extra import ExtraImages
from compress.data.split import Split, to_float
from compress.numerics.seeds import generator


class Supply:
    """Batches of `size` images by (seed, epoch, step) alone, so alike on every rank and after every stop.

    Without extra images an epoch is one random order of the training split; what fills no batch waits for the next.
    With them each batch has round(fraction · size) extra images behind those of the training split, either drawn
    without replacement from an endless row of random orders of its own. An epoch has as many steps as without.
    """

    def __init__(self, train: Split, size: int, seed: int, extra: "ExtraImages | None" = None) -> None:
        self.train, self.size, self.seed, self.extra = train, size, seed, extra
        self.added = 0 if extra is None else round(extra.fraction * size)
        self.where = train.images.device
        self._orders: dict[str, tuple[int, Tensor]] = {}

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return len(self.train.labels) // self.size

    def chosen(self, epoch: int, step: int) -> Tensor:
        """The numbers of the step's images, (B,), on the CPU; extra ones count on behind the training split."""
        count = len(self.train.labels)
        if self.extra is None:
            return self._order("order", epoch, count)[step * self.size : (step + 1) * self.size]
        at = epoch * self.steps + step
        own = self._next("order", at, self.size - self.added, count)
        return torch.cat([own, count + self._next("extra", at, self.added, len(self.extra.images))])

    def images(self, chosen: Tensor) -> Tensor:
        """Those images as they are, float32 (B,C,H,W) in [0, 1], on the device."""
        if self.extra is None:
            return to_float(self.train.images[chosen.to(self.where)])
        own, further = self._parts(chosen)
        new = self._moved(np.ascontiguousarray(self.extra.images[further]))
        return to_float(torch.cat([self.train.images[own], new]))

    def labels(self, chosen: Tensor) -> Tensor:
        """Their labels, (B,), on the device; −1 where an image came without."""
        if self.extra is None:
            return self.train.labels[chosen.to(self.where)]
        own, further = self._parts(chosen)
        known = self.extra.labels
        new = np.full(len(further), -1) if known is None else known[further]
        return torch.cat([self.train.labels[own], self._moved(new)])

    @property
    def labelled(self) -> bool:
        """Whether every image has a label."""
        return self.extra is None or self.extra.labels is not None

    def _next(self, name: str, at: int, batch: int, count: int) -> Tensor:
        """The `at`-th `batch` of an endless row: random orders of 0…count − 1, one behind the other."""
        begin, end, found = at * batch, (at + 1) * batch, []
        while begin < end:
            turn, offset = divmod(begin, count)
            found.append(self._order(name, turn, count)[offset : offset + end - begin])
            begin += len(found[-1])
        return torch.cat(found)

    def _order(self, name: str, turn: int, count: int) -> Tensor:
        """The random order of that turn; the last one is kept."""
        known, order = self._orders.get(name, (-1, torch.empty(0)))
        if known != turn:
            order = torch.randperm(count, generator=generator(self.seed, name, turn))
            self._orders[name] = (turn, order)
        return order

    def _parts(self, chosen: Tensor) -> tuple[Tensor, np.ndarray]:
        """Numbers in the training split, on the device, and those in the extra images behind them."""
        count = len(self.train.labels)
        own = int((chosen < count).sum())
        return chosen[:own].to(self.where), (chosen[own:] - count).cpu().numpy()

    def _moved(self, values: np.ndarray) -> Tensor:
        """On the device, without waiting for what it is computing."""
        found = torch.from_numpy(values)
        return found.pin_memory().to(self.where, non_blocking=True) if self.where.type == "cuda" else found
