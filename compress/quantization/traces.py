"""The operations of a network as read off one pass, kept for networks of ours that are built the same.

A chain lowers one architecture several times: to calibrate it, to open it again, for each dialect, to search on it.
"""

import contextlib
from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import InputSpec

from compress.networks.tracing import trace_program
from compress.quantization.blocks import inline_blocks

KEPT = 16
#: Whose modules compute by nothing but their weights, their submodules and plain attributes.
OURS = ("compress.networks.", "torch.nn.modules.")
NOT_OURS = ("compress.networks.foreign_network", "compress.networks.graph.")
PLAIN = (bool, int, float, str, NoneType, tuple, list, set, frozenset)


@dataclass(frozen=True)
class TracedOperations:
    """`graph` of ATen operations; what its inputs but the image are; tensors that no module holds. No weights."""

    graph: fx.Graph
    inputs: Sequence[InputSpec]
    constants: Mapping[str, Any]


def traced(network: nn.Module, example: Tensor, what: str) -> TracedOperations:
    """The trace of a network in evaluation mode on images like `example`; `what` is how a fault calls it."""
    key = _architecture(network, example)
    if key is not None and key in _KNOWN:
        _KNOWN.move_to_end(key)
        return _KNOWN[key]
    with contextlib.suppress(Exception), torch.no_grad():  # the trace meets it again and says where
        network(example)  # what a first call finds out about a network, or keeps, is no part of its graph
    with torch.enable_grad():  # without, a part that a network computes without gradients is none of its own
        program = trace_program(network, example, what)
    inline_blocks(program.graph_module, what)
    trace = TracedOperations(program.graph, tuple(program.graph_signature.input_specs), dict(program.constants))
    if key is not None:
        _KNOWN[key] = trace
        while len(_KNOWN) > KEPT:
            _KNOWN.popitem(last=False)
    return trace


def _architecture(network: nn.Module, example: Tensor) -> "Hashable | None":
    """What decides the operations; None where modules of others, hooks or attributes of other kinds may decide some."""
    parts: list[Hashable] = [tuple(example.shape), str(example.device)]
    for name, module in network.named_modules():
        home = type(module).__module__
        if name and (not home.startswith(OURS) or home.startswith(NOT_OURS)):
            return None
        if module._forward_hooks or module._forward_pre_hooks:
            return None
        own = {key: value for key, value in vars(module).items() if not key.startswith("_") and key != "training"}
        if not all(isinstance(value, PLAIN) for value in own.values()):
            return None
        parts.append((name, type(module), repr(sorted(own.items()))))
    tensors = [*network.named_parameters(remove_duplicate=False), *network.named_buffers(remove_duplicate=False)]
    parts.extend((name, tuple(tensor.shape), tensor.dtype) for name, tensor in tensors)
    return tuple(parts)


_KNOWN: "OrderedDict[Hashable, TracedOperations]" = OrderedDict()
