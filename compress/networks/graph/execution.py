"""In which order a graph's nodes are executed, and which of them on the host: those that compute with sizes."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import torch
from torch import Tensor

from compress.networks.graph import Node
from compress.networks.graph.operators import OPERATORS
from compress.networks.graph.sizes import MEASURES, MOST_NUMBERS, OPERATORS_ON_SIZES, TYPES

#: Operators that make tensors of numbers alone.
MADE_OF_NUMBERS = ("ConstantOfShape", "Range")


@dataclass(frozen=True)
class ExecutionOrder:
    """The nodes behind `result`, in their order; `done`: after each the values that no later one reads."""

    nodes: list[Node]
    done: list[list[str]]
    result: str

    @classmethod
    def behind(cls, nodes: Sequence[Node], result: str) -> "ExecutionOrder":
        needed = _needed(nodes, result)
        return cls(needed, _last_uses(needed), result)


def _needed(nodes: Sequence[Node], result: str) -> list[Node]:
    """The nodes behind `result`, in their order."""
    wanted, backwards = {result}, []
    for node in reversed(nodes):
        if wanted.intersection(node.outputs):
            wanted.update(node.inputs)
            backwards.append(node)
    return backwards[::-1]


def _last_uses(nodes: Sequence[Node]) -> list[list[str]]:
    """After each node the values that no later one reads, so that they need not stay in memory."""
    last = {name: number for number, node in enumerate(nodes) for name in node.inputs}
    done: list[list[str]] = [[] for _ in nodes]
    for name, number in last.items():
        done[number].append(name)
    return done


def host_results(nodes: Sequence[Node], constants: Mapping[str, Tensor], halves: Set[str]) -> frozenset[str]:
    """The tensors that are computed on the host: from sizes and a few numbers, by operators that take arrays."""
    numbers = {name for name, value in constants.items() if _is_number(value)} - halves
    found: set[str] = set()
    for node in nodes:
        read = {name for name in node.inputs if name}
        arithmetic = (
            node.op in OPERATORS_ON_SIZES
            and read & found
            and read <= found | numbers
            and not halves & {*node.outputs}
            and (node.op != "Cast" or node.whole("to", 0) in TYPES)
            and (node.op != "ConstantOfShape" or _fills_whole(node))
        )
        if node.op in MEASURES or arithmetic:
            found.update(node.outputs)
    return frozenset(found)


def _is_number(value: Tensor) -> bool:
    """Whether sizes may be computed with it; a float but alone, as weights are floats too."""
    return value.numel() <= (1 if value.is_floating_point() else MOST_NUMBERS) and value.dtype != torch.uint16


def _fills_whole(node: Node) -> bool:
    fill = node.attributes.get("value")
    return fill is not None and fill.data_type in (6, 7, 9)


def takes_numbers(node: Node, place: int) -> bool:
    operator = OPERATORS.get(node.op)  # none of rounding and of layers, which are modules
    return operator is not None and place in operator.numbers
