"""Operands as operators read them: element types, whole numbers, and what is an input in some opsets only."""

from typing import Any

import torch
from torch import Tensor

from compress.networks.graph import Node

#: ONNX's numbers of element types; half precision is carried in float32 (`rounding`)
TYPES = dict.fromkeys((1, 10, 16), torch.float32) | {2: torch.uint8, 3: torch.int8, 5: torch.int16}
TYPES |= {4: torch.uint16, 6: torch.int32, 7: torch.int64, 9: torch.bool, 11: torch.float64}


def numbers(values: Tensor) -> list[int]:
    """Whole numbers; of sizes that torch.export leaves open symbols, in an array.

    No function of torch is called that gives a tensor: features are found by the count of such calls, and a trace
    reads arrays.
    """
    read: Any = values.tolist()
    return [int(value) if isinstance(value, float) else value for value in (read if isinstance(read, list) else [read])]


def stated(node: Node, name: str, values: "Tensor | None") -> "list[int] | None":
    """What is an input in later opsets and an attribute in earlier ones; None where it is neither."""
    if values is not None:
        return numbers(values)
    return node.ints(name, []) if name in node.attributes else None


def checked_index(index: Tensor, size: int) -> Tensor:
    """Places along an axis of that size, those counted from its end as counted from its start.

    ValueError where one lies outside. Only the processor is asked: the trial of a new twin runs there, and waiting for
    a device at each call would cost more than the operator.
    """
    places = index.to(torch.int64)
    asked = places.device.type == "cpu" and not torch.compiler.is_compiling()
    if asked and bool(((places < -size) | (places >= size)).any()):
        raise ValueError(f"an index lies outside of {size} rows")
    return places % size
