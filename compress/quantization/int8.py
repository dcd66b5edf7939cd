"""The twin: a network whose weights and activations pass 8-bit fake quantizers, and the state that lays it out.

Symmetric throughout, zero point 0: weights signed per output channel, activations per tensor. BatchNorm is folded
first, so that what is quantized here is what the exported file stores. `quantizer.json` holds the layout

    bits            8
    unsigned        site → whether its values were never negative
    fused           sites that a runtime does without which computes a convolution and the sum behind it as one
    float_layers    convolutions and linear layers that stay in floating point, with the sites that serve them alone
    ranges          how the activations' ranges were found
    runtime         the dialect whose grid the network was fine-tuned through

and `weights.safetensors` the range of every site and every weight, so that the twin of each dialect (`grids`) follows
from one state.
"""

import copy
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compress.networks.base import Classifier
from compress.quantization import grids, ranges
from compress.quantization.graph_network import GraphNetwork, MatMul
from compress.quantization.lowering import device_of, lower
from compress.quantization.quantizer import QuantConv2d, Quantizer, QuantLinear, with_quantizers
from compress.quantization.ranges import Ranges
from compress.quantization.sites import fused_sites, image_sites, quantizer_sites, site_layers
from edge.core import artifact
from edge.core.errors import CompressError

QUANTIZER = "quantizer.json"
KEYS = ("bits", "unsigned", "fused", "float_layers", "ranges", "runtime")
MAX = Ranges()
Layout = dict[str, Any]


def quantize_network(
    model: Classifier, images: Iterable[Tensor], method: Ranges = MAX
) -> "tuple[GraphNetwork, Layout]":
    """`model` quantized, all of it, with ranges found on batches of `images` (B,C,H,W); and the layout.

    Weights of `model` are shared, but for those that BatchNorm is folded into. UntraceableNetwork where its forward
    cannot be followed.
    """
    batches = list(images)
    twin = lower(model, tuple(batches[0].shape[1:]))
    sites, exact, fused = quantizer_sites(twin), image_sites(twin), fused_sites(twin)
    _insert(twin, sites)
    ranges.set_weight_ranges(twin, method)
    layout = {
        "bits": 8,
        "unsigned": ranges.set_activation_ranges(twin, sites, batches, method, exact=exact),
        "fused": fused,
        "float_layers": [],
        "ranges": method.activations,
        "runtime": method.runtime,
    }
    lay_out(twin, grids.dialect(method.runtime).layout(layout))
    return twin, layout


def leave_float(model: GraphNetwork, layout: Layout, float_layers: Sequence[str]) -> Layout:
    """The layout of the wholly quantized `model` with those layers, and the sites that serve them alone, left float."""
    serves = site_layers(model)
    rest = {site: unsigned for site, unsigned in layout["unsigned"].items() if serves[site] - {*float_layers}}
    return {**layout, "unsigned": rest, "float_layers": list(float_layers)}


def lay_out(model: GraphNetwork, layout: Layout) -> None:
    """Turn on, in place, those quantizers of a quantized network that `layout` has, and the others off."""
    for name, quantizer in quantizers(model):
        layer = name.removesuffix(".weight_quantizer")
        is_weight = name.endswith(".weight_quantizer")
        quantizer.is_enabled = layer not in layout["float_layers"] if is_weight else name in layout["unsigned"]
        quantizer.unsigned = layout["unsigned"].get(name, False)


def restore(
    model: Classifier,
    image: "tuple[int, ...]",
    layout: Layout,
    weights: Mapping[str, Tensor],
    where: "Path | str" = "",
) -> GraphNetwork:
    """The quantized network of that layout and those weights; `model`, for images (C,H,W), is the float one as built.

    `where` the weights lie leads the line that says what is wrong with them.
    """
    twin = lower(model, image)
    _insert(twin, quantizer_sites(twin))
    lead, wanted = f"{where}: " if where else "", twin.state_dict()
    if odd := sorted({*wanted} ^ {*weights}):
        what = "is missing" if odd[0] in wanted else "is unknown"
        raise CompressError(f"{lead}the weights do not fit the quantized network, {odd[0]} {what}; quantize again")
    twin.load_state_dict(dict(weights), strict=True, assign=True)
    lay_out(twin, layout)
    check_ranges(twin, lead)
    return twin


def check_ranges(model: nn.Module, lead: str = "") -> None:
    """Whether every quantizer that is on has a range, all of it finite and above 0."""
    for name, quantizer in quantizers(model):
        bad = ~(torch.isfinite(quantizer.amax) & (quantizer.amax > 0))
        if quantizer.is_enabled and bool(bad.any()):
            value = float(quantizer.amax[bad].flatten()[0])
            raise CompressError(f"{lead}INT8 without ranges: {name} has {value:g}, not above 0; quantize again")


def quantizers(model: nn.Module) -> Iterator[tuple[str, Quantizer]]:
    """Every quantizer with its name, in the network's order."""
    return ((name, module) for name, module in model.named_modules() if isinstance(module, Quantizer))


def quantized_layers(model: nn.Module) -> list[str]:
    """The convolutions, linear layers and products of a quantized network, in its order."""
    kinds = QuantConv2d | QuantLinear | MatMul
    return [name for name, module in model.named_modules() if isinstance(module, kinds)]


def float_copy(twin: GraphNetwork) -> GraphNetwork:
    """The network of the same weights without quantizers."""
    plain = copy.deepcopy(twin)
    for _, quantizer in quantizers(plain):
        quantizer.is_enabled = False
    return plain


def _insert(model: GraphNetwork, sites: Mapping[str, str]) -> None:
    """Put quantizers into a lowered network, in place, all of them off and without a range."""
    sides: dict[str, set[str]] = {
        name: set() for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)
    }
    for site, target in sites.items():
        sides.setdefault(target, set()).add(site.rpartition(".")[2].removesuffix("_quantizer"))
    for name, quantized_sides in sides.items():
        model.place(name, with_quantizers(model.get_submodule(name), quantized_sides))
    model.to(device_of(model)).eval()


def write_layout(work: artifact.Work, layout: Layout) -> None:
    artifact.write_atomic(work.add_payload(QUANTIZER), json.dumps(layout, indent=2) + "\n")


def read_layout(path: Path) -> Layout:
    """The layout in a stage folder; one that lacks a key was written by another version: CompressError."""
    layout = dict(json.loads((path / QUANTIZER).read_text(encoding="utf-8")))
    if missing := [key for key in KEYS if key not in layout]:
        raise CompressError(f"{path}: {QUANTIZER} lacks {', '.join(missing)}, another version wrote it; quantize again")
    return layout
