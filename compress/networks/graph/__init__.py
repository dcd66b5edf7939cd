"""An ONNX graph as a torch network: its nodes, their operators, its twin, or a classifier of nothing but logits."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Node:
    """`inputs` and `outputs` are tensor names, "" for an optional one that is left out."""

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    opset: int

    def whole(self, name: str, default: int) -> int:
        return int(self.attributes.get(name, default))

    def number(self, name: str, default: float) -> float:
        return float(self.attributes.get(name, default))

    def ints(self, name: str, default: Sequence[int]) -> list[int]:
        return [int(value) for value in self.attributes.get(name, default)]

    def text(self, name: str, default: str) -> str:
        value = self.attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else str(value)


@dataclass(frozen=True)
class Operator:
    """What computes it: (node, inputs…) → its output, or all of them. `reads`: the attributes that are honoured.

    `ignores`: those that change nothing of what is computed: of training, of float8, of an output that is refused.
    `all_outputs`: every output is computed, not the first alone. `numbers`: the places among its inputs where it takes
    numbers, such as sizes and axes, and no values of the image.
    """

    compute: Callable[..., Any]
    reads: str = ""
    ignores: str = ""
    all_outputs: bool = False
    numbers: tuple[int, ...] = ()
