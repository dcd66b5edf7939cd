"""Operations that write into a tensor, and why a graph can do without them.

A trace binds a tensor that was written into to the operation that wrote, so the same operation without writing gives
all later readers what they would have read. Unless they read through another view of the same memory.
"""

from typing import Any

import torch
from torch import fx

from compress.networks.tracing import UntraceableNetwork, module_path

aten = torch.ops.aten


def functional(target: Any) -> Any:
    """The operation that gives what `target` writes into its first argument; `target` where it writes nothing."""
    if not isinstance(target, torch._ops.OpOverload) or not target._schema.is_mutable:
        return target
    packet = getattr(aten, target._schema.name.partition("::")[2].removesuffix("_"), None)
    plain = getattr(packet, target._overloadname, None)
    return target if plain is None or plain._schema.is_mutable else plain


def refuse_partial_writes(graph: fx.Graph, what: str) -> None:
    """UntraceableNetwork where a write reaches a reader through another view of the memory."""
    memory: dict[fx.Node, fx.Node] = {}  # node → the node that made its memory
    written: dict[fx.Node, fx.Node] = {}  # memory → the last node that wrote into it
    for node in graph.nodes:
        for before in node.all_input_nodes:
            writer = written.get(memory[before])
            if writer is not None and not _reaches(writer, before):
                where = module_path(writer).removeprefix("network.") or "its forward"
                raise UntraceableNetwork(
                    f"{where} of {what}: writes into a part of a tensor that is read again ({writer.target}); "
                    f"compute a new tensor instead"
                )
        memory[node] = memory[node.all_input_nodes[0]] if _shares(node) else node
        if _writes(node):
            written[memory[node]] = node


def _writes(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and bool(node.target._schema.is_mutable)


def _shares(node: fx.Node) -> bool:
    """Whether a node's result lies in its first input's memory."""
    if not node.all_input_nodes:
        return False
    if not isinstance(node.target, torch._ops.OpOverload):
        return getattr(node.target, "__name__", "") == "getitem"
    returns = node.target._schema.returns
    return (bool(returns) and returns[0].alias_info is not None) or _writes(node)


def _reaches(writer: fx.Node, node: fx.Node) -> bool:
    """Whether `node` is what `writer` gave, or a view made of that afterwards."""
    while node is not writer:
        if not _shares(node):
            return False
        node = node.all_input_nodes[0]
    return True
