"""The ranges of a network's quantizers, the values that their highest levels stand for, from images that pass it.

The network computes in floating point. Of activations a histogram of magnitudes is kept, so that memory does not grow
with the number of images.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compress.networks.base import Classifier
from compress.quantization import grids
from compress.quantization.grids import SIGNED
from compress.quantization.quantizer import QuantConv2d, QuantLinear
from edge.core import targets
from edge.core.errors import CompressError

BINS = 8192
ENTROPY_BINS = 2048
#: Shares of the largest value that a search by mean squared error tries.
SHARES = tuple(round(0.01 * k, 2) for k in range(20, 101))
#: Least range of a channel of weights, as a share of its layer's: below it an int32 bias no longer fits its scale.
LEAST_CHANNEL = 2.0**-12


@dataclass(frozen=True)
class Ranges:
    """How ranges are found: of activations by `names.RANGES`, of weights by max or mse; and for which dialect's grid.

    Learned ones begin at those by mse.
    """

    activations: str = "max"
    percent: float = 99.99
    weights: str = "max"
    runtime: str = targets.DIALECT


def set_activation_ranges(
    model: Classifier, sites: dict[str, str], images: Iterable[Tensor], method: Ranges, *, exact: "set[str]"
) -> dict[str, bool]:
    """Set the range of every site (quantizer name → module), and whether it is never negative: site → unsigned.

    `images` is read once for max and twice for the others. `exact` sites keep the range [0, 1]: the image itself, whose
    8-bit levels then pass as they are. What is always zero is given the range 1.
    """
    low, top = dict.fromkeys(sites, math.inf), dict.fromkeys(sites, 0.0)

    def extremes(site: str, value: Tensor) -> None:
        least, most = torch.aminmax(value)
        low[site] = min(low[site], float(least))
        top[site] = max(top[site], abs(float(least)), abs(float(most)))
        if not math.isfinite(top[site]) or math.isnan(float(least)):
            raise CompressError(f"INT8 without ranges: the values at {site} are not finite; train the student again")

    _watch(model, sites, images, extremes)
    unsigned = {site: value >= 0 for site, value in low.items()}
    chosen = {site: value or 1.0 for site, value in top.items()}
    if method.activations != "max":
        dialect = grids.dialect(method.runtime)
        seen = {site: Histogram(value) for site, value in chosen.items()}
        _watch(model, sites, images, lambda site, value: seen[site].add(value))
        highest = {site: dialect.levels(unsigned[site])[1] for site in sites}
        search: Callable[[str], float] = {
            "percentile": lambda site: percentile(seen[site], method.percent),
            "entropy": lambda site: entropy(seen[site], highest[site] + 1),
        }.get(method.activations, lambda site: mse(seen[site], highest[site]))
        chosen = {site: search(site) if top[site] else 1.0 for site in sites}
    for site in sites:
        quantizer: Any = model.get_submodule(site)
        quantizer.amax.fill_(1.0 if site in exact and unsigned[site] else chosen[site])
    return unsigned


def set_weight_ranges(model: Classifier, method: Ranges) -> None:
    """Set the range of every layer's weights, per output channel."""
    for module in model.modules():
        if not isinstance(module, QuantConv2d | QuantLinear):
            continue
        quantizer, weight = module.weight_quantizer, module.weight.detach()
        top = weight.abs().flatten(1).amax(1)
        if not bool(torch.isfinite(top).all()):
            raise CompressError("INT8 without ranges: the student's weights are not finite; train it again")
        layer = float(top.max()) or 1.0
        top = top.clamp(min=LEAST_CHANNEL * layer)
        quantizer.amax.copy_(mse_by_channel(weight, top, SIGNED[1]) if method.weights == "mse" else top)


def _watch(
    model: Classifier, sites: dict[str, str], images: Iterable[Tensor], tell: Callable[[str, Tensor], None]
) -> None:
    """`tell` of every site the values that pass it, batch by batch; quantizers are off."""

    def hook(site: str, side: str) -> Any:
        def called(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            tell(site, {"output": output, "input": args[0], "a": args[0], "b": args[-1]}[side])

        return called

    handles = [
        model.get_submodule(target).register_forward_hook(
            hook(site, site.rpartition(".")[2].removesuffix("_quantizer"))
        )
        for site, target in sites.items()
    ]
    try:
        with torch.no_grad():
            for x in images:
                model(x)
    finally:
        for handle in handles:
            handle.remove()


# ----------------------------------------------------------------------------------------------- searches


@dataclass
class Histogram:
    """Counts of |x| in `BINS` bins of equal width over [0, top]; what lies above counts in the last."""

    top: float

    def __post_init__(self) -> None:
        self.counts = np.zeros(BINS, np.int64)

    def add(self, x: Tensor) -> None:
        """x of any shape."""
        index = (x.detach().abs().flatten() * (BINS / self.top)).to(torch.int64).clamp_(max=BINS - 1)
        self.counts += torch.bincount(index, minlength=BINS).cpu().numpy()

    @property
    def width(self) -> float:
        return self.top / BINS


def percentile(seen: Histogram, percent: float) -> float:
    """The upper end of the bin below which, its own values included, lie at least `percent` of all values."""
    reached = np.cumsum(seen.counts) >= math.ceil(seen.counts.sum() * percent / 100)
    return float((int(np.argmax(reached)) + 1) * seen.width)


def mse(seen: Histogram, highest: int) -> float:
    """Of `SHARES` of the largest value the one of least mean squared rounding and clipping error, the larger of equals.

    Levels 0…highest; a bin's values stand at its middle, the first bin's at 0, where zeros are.
    """
    middles = (np.arange(BINS) + 0.5) * seen.width
    middles[0] = 0.0
    errors = []
    for share in SHARES:
        scale = share * seen.top / highest
        kept = np.minimum(np.rint(middles / scale), highest) * scale
        errors.append(float((seen.counts * (middles - kept) ** 2).sum()))
    least = len(errors) - 1 - int(np.argmin(errors[::-1]))  # of equals the last, the largest share
    return SHARES[least] * seen.top


def entropy(seen: Histogram, levels: int) -> float:
    """Of the ends of `ENTROPY_BINS` bins the one whose `levels` levels lose least: KL(P ‖ Q) (Migacz, GTC 2017).

    P: the counts up to that end, what lies above added to the last bin. Q: the same bins without what lies above,
    joined into `levels` groups, each group's count spread evenly over its bins that are not empty. The first bin counts
    as the second: it holds the zeros of ReLU, which every grid keeps.
    """
    counts = seen.counts.reshape(ENTROPY_BINS, -1).sum(1).astype(np.float64)
    counts[0] = counts[1]
    total, last = counts.sum(), int(np.flatnonzero(counts)[-1]) + 1 if counts.any() else ENTROPY_BINS
    if last <= levels:
        return seen.top
    best, end = math.inf, last
    for stop in range(levels, last + 1):
        lost = _divergence(counts[:stop], total - counts[:stop].sum(), levels)
        if lost <= best:  # of equals the wider
            best, end = lost, stop
    return float(end * seen.top / ENTROPY_BINS)


def _divergence(inside: np.ndarray, outside: float, levels: int) -> float:
    """KL(P ‖ Q) in nats of the bins kept, both normalised; infinite where P has values in a bin that Q leaves empty."""
    group = np.arange(len(inside)) * levels // len(inside)
    filled = inside > 0
    sums = np.bincount(group, inside, levels)
    sharing = np.bincount(group, filled, levels)
    spread = np.where(filled, (sums / np.maximum(sharing, 1))[group], 0.0)
    reference = inside.copy()
    reference[-1] += outside
    if np.any((reference > 0) & (spread == 0)):
        return math.inf
    p, q = reference[filled] / reference.sum(), spread[filled] / spread.sum()
    return float((p * np.log(p / q)).sum())


def mse_by_channel(weight: Tensor, top: Tensor, highest: int) -> Tensor:
    """As `mse`, for each channel of weights (channels,…) with largest magnitudes `top` (channels,), exactly."""
    rows = weight.detach().flatten(1)
    errors = []
    for share in SHARES:
        scale = (share * top / highest)[:, None]
        kept = (rows / scale).round_().clamp_(-highest - 1, highest).mul_(scale)
        errors.append((rows - kept).square_().sum(1))
    table = torch.stack(errors).flip(0)  # of equals the first: the largest share
    shares = torch.tensor(SHARES, dtype=top.dtype, device=top.device).flip(0)
    return shares[table.argmin(0)] * top
