"""The ranges of a network's quantizers, from images that pass it in floating point."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compress.networks.base import Classifier
from compress.quantization import grids, ranges
from compress.quantization.grids import SIGNED
from compress.quantization.quantized import QuantConv2d, QuantLinear
from compress.quantization.ranges import Histogram
from edge.core import targets
from edge.core.errors import CompressError

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
        seen = {site: Histogram(value) for site, value in chosen.items()}
        _watch(model, sites, images, lambda site, value: seen[site].add(value))
        chosen = {site: _range(seen[site], method, unsigned[site]) if top[site] else 1.0 for site in sites}
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
        quantizer.amax.copy_(ranges.mse_by_channel(weight, top, SIGNED[1]) if method.weights == "mse" else top)


def _range(seen: Histogram, method: Ranges, unsigned: bool) -> float:
    highest = grids.dialect(method.runtime).levels(unsigned)[1]
    if method.activations == "percentile":
        return ranges.percentile(seen, method.percent)
    if method.activations == "entropy":
        return ranges.entropy(seen, highest + 1)
    return ranges.mse(seen, highest)


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
