"""Blocks of operations that run under a state of their own, autocast or without gradients, as part of the graph.

torch.export wraps each in an operation over a graph of its own; quantization reads one graph.
"""

from typing import Any

import torch
from torch import fx

from edge.core.progress import say_once

GRADIENTS, AUTOCAST = "wrap_with_set_grad_enabled", "wrap_with_autocast"
#: How many arguments stand before a block's graph.
STATES = {GRADIENTS: 1, AUTOCAST: 4}


def inline_blocks(module: fx.GraphModule, name: str) -> None:
    """Put the operations of all blocks in their place, in place, at any depth.

    What a block without gradients gives passes none. Autocast that is on is left out, said: its block then computes in
    the types of what it is given. `name` is how the line calls the network.
    """
    graph = module.graph
    for node in list(graph.nodes):
        kind = getattr(node.target, "__name__", "")
        if node.op != "call_function" or kind not in STATES:
            continue
        state, (body, *inputs) = node.args[: STATES[kind]], node.args[STATES[kind] :]
        if kind == AUTOCAST and state[2]:
            say_once(
                f"{name}: runs a part under autocast ({str(state[1]).removeprefix('torch.')} on {state[0]}); its graph "
                f"computes that part in float32"
            )
        inner = module.get_submodule(str(body.target))
        assert isinstance(inner, fx.GraphModule)
        inline_blocks(inner, name)
        placeholders = [each for each in inner.graph.nodes if each.op == "placeholder"]
        with graph.inserting_before(node):
            outputs = graph.graph_copy(inner.graph, dict(zip(placeholders, inputs, strict=True)))
            if kind == GRADIENTS and not state[0]:
                outputs = fx.map_arg(outputs, lambda value: _detached(graph, value))
        _replace(node, outputs)


def _detached(graph: fx.Graph, value: fx.Node) -> fx.Node:
    detached = graph.call_function(torch.ops.aten.detach.default, (value,))
    detached.meta = dict(value.meta)
    return detached


def _replace(block: fx.Node, outputs: Any) -> None:
    """Readers of a block's result, each of one of its outputs, read that output."""
    for reader in list(block.users):
        reader.replace_all_uses_with(outputs[reader.args[1]])
        block.graph.erase_node(reader)
    block.graph.erase_node(block)
