"""Passes of a network that leave nothing behind: no mode, no buffer, no random stream is another after them."""

import contextlib
from collections.abc import Iterator

import torch
from torch import nn


@contextlib.contextmanager
def undisturbed(network: nn.Module) -> Iterator[None]:
    """Inside, passes without gradients, in evaluation mode, that leave no trace."""
    with evaluating(network), without_trace(network), torch.no_grad():
        yield


@contextlib.contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Inside, the network is in evaluation mode; afterwards each of its modules in the mode that it had."""
    modes = [(module, module.training) for module in network.modules()]  # a wrapper's need not be its network's
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextlib.contextmanager
def without_trace(network: nn.Module) -> Iterator[None]:
    """Inside, passes of the network change none of its buffers, and nothing moves torch's own random streams.

    The buffers are copies meanwhile, not written back: autograd refuses a running mean that was written to.
    """
    kept = [(module._buffers, name, value) for module in network.modules() for name, value in module._buffers.items()]
    gpus = {value.device for value in network.parameters() if value.is_cuda}
    with torch.random.fork_rng(devices=list(gpus)):
        for buffers, name, value in kept:
            buffers[name] = None if value is None else value.clone()
        try:
            yield
        finally:
            for buffers, name, value in kept:
                buffers[name] = value
