"""The network that an attack searches on: the one under test, laid out and rounded for speed. It decides nothing.

Weights and activations are bfloat16 where the hardware multiplies it, but the layer that reads the pixels and the one
that gives the logits compute in float32: no pixel is rounded before it is summed, and losses, margins and step sizes
are float32 numbers of float32 logits. Every candidate is then judged by the network itself, and images that rounding
may have decided are attacked again on it (`compress.attacks.ensemble`).
"""

import copy
import sys
from typing import Any

import torch
from torch import Tensor, nn

from compress.attacks.contract import Model, logits_of
from compress.networks.base import Classifier
from compress.networks.graph.rounding import QuantizeLinear
from compress.networks.tracing import UntraceableNetwork
from compress.numerics.precision import BFLOAT16, FLOAT32, autocast
from compress.quantization.lowering import lower, name_of
from compress.quantization.quantizer import Quantizer
from edge.core.errors import CompressError, first_line
from edge.core.progress import say

#: Share of the spread of its logits by which the copy may miss the network; honest ones stay near 1 %.
DISAGREEMENT = 0.05
#: Fake quantizers of libraries, by the module that holds them: a network has one only where that module is imported.
FOREIGN_QUANTIZERS = {
    "torch.ao.quantization.fake_quantize": "FakeQuantizeBase",
    "torchao.quantization.qat": "FakeQuantizerBase",
    "modelopt.torch.quantization.nn": "TensorQuantizer",
}


class NoSearchCopy(Exception):
    """The reason, in words, why a network has no copy to search on. Whatever else is raised here is a bug of ours."""


class Inside(nn.Module):
    """A copy of `network` for searching: channels last, in `precision`; float32 images (B,C,H,W) → float32 logits.

    NoSearchCopy where the network cannot be copied, or does not run when it is laid out or rounded that way.
    """

    def __init__(self, network: nn.Module, precision: str, example: Tensor) -> None:
        super().__init__()
        try:
            twin = copy.deepcopy(network).requires_grad_(False)
            self.network = twin.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        except (TypeError, RuntimeError) as fault:  # locks, tensors with a graph, weights of five dimensions
            raise NoSearchCopy(f"it cannot be copied ({first_line(fault)})") from fault
        self.precision, self.device = precision, example.device
        if isinstance(network, Classifier):
            try:
                self.network = lower(self.network, tuple(example.shape[1:]))
            except UntraceableNetwork as fault:
                say_once(network, f"is searched on unfolded: its forward pass cannot be traced ({first_line(fault)})")
        try:
            if precision == BFLOAT16:
                _round(self.network, example)
            logits_of(self, example[:1])
        # a view of what is channels last, a type that an operator lacks; told in words by a network of others
        except (TypeError, RuntimeError, CompressError) as fault:
            raise NoSearchCopy(f"a copy in {precision}, channels last, does not run ({first_line(fault)})") from fault

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
            values: Tensor = self.layer(x.float())
        return values.to(self.result)


def search_model(model: Model, precision: str, example: Tensor) -> Model:
    """What to search on in place of `model`: an `Inside` that answers `example` (B,C,H,W) as `model` does, or `model`.

    `model` itself where it is no float32 module, where fake quantizers round its values (another rounding before
    theirs is another network), where it cannot be copied, or where the copy's logits are elsewhere, as those of a
    network that draws at random. The reason is said, once a kind of network.
    """
    try:
        return _agreeing_copy(model, precision, example)
    except NoSearchCopy as reason:
        say_once(model, f"is searched on itself: {reason}")
        return model


def _agreeing_copy(model: Model, precision: str, example: Tensor) -> Inside:
    if not isinstance(model, nn.Module):
        raise NoSearchCopy("it is no torch module")
    if other := {weight.dtype for weight in model.parameters()} - {torch.float32}:
        raise NoSearchCopy(f"it has weights in {', '.join(sorted(map(str, other)))}, not float32")
    foreign = [getattr(sys.modules[name], kind) for name, kind in FOREIGN_QUANTIZERS.items() if name in sys.modules]
    if count := sum(isinstance(part, (Quantizer, QuantizeLinear, *foreign)) for part in model.modules()):
        raise NoSearchCopy(f"{count} fake quantizers round its values")
    searched = Inside(model, precision, example)
    true, near = logits_of(model, example), logits_of(searched, example)
    spread = true.amax(1) - true.amin(1)
    if count := int((~((near - true).abs().amax(1) <= DISAGREEMENT * spread)).sum()):
        raise NoSearchCopy(
            f"a copy in {precision} answers otherwise on {count} of {len(example)} images, "
            f"as that of a network which draws at random does"
        )
    return searched


_SAID: set[tuple[type, str, str]] = set()


def say_once(model: Model, line: str) -> None:
    """A line about a network, once for its class and name: attacks come to it many times."""
    said = (type(model), name_of(model), line)
    if said not in _SAID:
        _SAID.add(said)
        say(f"{name_of(model)} {line}")


def precision_of(model: Model) -> str:
    """In which precision the search goes on."""
    return model.precision if isinstance(model, Inside) else FLOAT32


def _round(network: nn.Module, example: Tensor) -> None:
    """Weights to bfloat16, in place, the first and the last layer in the order of execution left in float32."""
    met: dict[int, nn.Module] = {}  # each once, as the forward pass comes to them

    def note(layer: nn.Module, args: Any, output: Any) -> None:
        met.setdefault(id(layer), layer)

    weighted = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    handles = [layer.register_forward_hook(note) for layer in weighted]
    try:
        with torch.no_grad():
            network(example[:1])
    finally:
        for handle in handles:
            handle.remove()
    layers = list(met.values())
    for layer in layers[1:-1]:
        layer.to(torch.bfloat16)
    ends = {id(layer): torch.bfloat16 for layer in layers[:1]} | {id(layer): torch.float32 for layer in layers[-1:]}
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if id(child) in ends:
                setattr(parent, name, Float32(child, ends[id(child)]))
