"""The network that an attack searches on: the one under test, laid out and rounded for speed. It decides nothing.

Weights and activations are bfloat16 where the hardware multiplies it, but the layer that reads the pixels and the one
that gives the logits compute in float32: no pixel is rounded before it is summed, and losses, margins and step sizes
are float32 numbers of float32 logits. Every candidate is then judged by the network itself, and images that rounding
may have decided are attacked again on it (`compress.attacks.ensemble`).
"""

import contextlib
import copy
from typing import Any

import torch
from torch import Tensor, nn

from compress.attacks.contract import Model
from compress.networks.base import Classifier
from compress.numerics.precision import BFLOAT16, FLOAT32, autocast
from compress.quantization.folding import fold

#: Share of the spread of its logits by which the copy may miss the network; honest ones stay near 1 %.
DISAGREEMENT = 0.05


class Inside(nn.Module):
    """A copy of `network` for searching: channels last, in `precision`; float32 images (B,C,H,W) → float32 logits."""

    def __init__(self, network: nn.Module, precision: str, example: Tensor) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.precision, self.device = precision, example.device
        if isinstance(network, Classifier):
            with contextlib.suppress(Exception):  # a forward pass that cannot be traced stays unfolded
                fold(self.network)
        if precision == BFLOAT16:
            _round(self.network, example)

    def forward(self, x: Tensor) -> Tensor:
        with autocast(self.precision, self.device):
            logits: Tensor = self.network(x.contiguous(memory_format=torch.channels_last))
        return logits


class Float32(nn.Module):
    """A layer that computes in float32 whatever is around it, and hands on its values in `result`."""

    def __init__(self, layer: nn.Module, result: torch.dtype) -> None:
        super().__init__()
        self.layer, self.result = layer, result

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            found: Tensor = self.layer(x.float())
        return found.to(self.result)


def search_model(model: Model, precision: str, example: Tensor) -> Model:
    """What to search on in place of `model`: an `Inside` that answers `example` (B,C,H,W) as `model` does, or `model`.

    `model` itself where it is no float32 module, where fake quantizers round its values (another rounding before
    theirs is another network), or where the copy's logits are elsewhere, as those of a network that draws at random.
    """
    if not isinstance(model, nn.Module) or not _plain(model):
        return model
    try:
        found = Inside(model, precision, example)
        with torch.no_grad():
            true, near = model(example), found(example)
    except Exception:  # whatever a foreign network raises when it is copied or rounded
        return model
    spread = true.amax(1) - true.amin(1)
    return found if bool(((near - true).abs().amax(1) <= DISAGREEMENT * spread).all()) else model


def precision_of(model: Model) -> str:
    """In which precision the search goes on."""
    return model.precision if isinstance(model, Inside) else FLOAT32


def _plain(model: nn.Module) -> bool:
    floats = all(weight.dtype == torch.float32 for weight in model.parameters())
    return floats and not any("Quantizer" in type(part).__name__ for part in model.modules())


def _round(network: nn.Module, example: Tensor) -> None:
    """Weights to bfloat16, in place, the first and the last layer in the order of execution left in float32."""
    layers = _executed(network, example)
    for layer in layers[1:-1]:
        layer.to(torch.bfloat16)
    ends = {id(layer): torch.bfloat16 for layer in layers[:1]} | {id(layer): torch.float32 for layer in layers[-1:]}
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if id(child) in ends:
                setattr(parent, name, Float32(child, ends[id(child)]))


def _executed(network: nn.Module, example: Tensor) -> list[nn.Module]:
    """Convolutions and linear layers, each once, as the forward pass comes to them."""
    found: dict[int, nn.Module] = {}

    def note(layer: nn.Module, args: Any, output: Any) -> None:
        found.setdefault(id(layer), layer)

    handles = [
        layer.register_forward_hook(note) for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    try:
        with torch.no_grad():
            network(example[:1])
    finally:
        for handle in handles:
            handle.remove()
    return list(found.values())
