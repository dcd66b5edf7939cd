"""Names of a graph's layers and weights as paths of modules: those of the file where it has such, as torch's have."""

import re
from collections.abc import Sequence

from compress.networks.graph import Node

#: How names of a layer's weights end.
LASTS = (".weight", ".bias", ".running_mean", ".running_var")


class LayerNames:
    """Paths that no two things have; `own`: the attributes that the network has itself."""

    def __init__(self, own: "set[str]") -> None:
        self._own = own
        self._taken: set[str] = set()
        self._tensors: set[str] = set()  # of those, the paths of weights, which hold nothing

    def of_layer(self, node: Node, weights: Sequence[str]) -> str:
        """Of `conv1.weight` or `conv1.bias` that is conv1; else the node's own scope, /layer1/layer1.0/conv1/Conv."""
        named = (name.removesuffix(last) for name, last in zip(weights, LASTS, strict=False) if name.endswith(last))
        own = next(filter(None, named), "")
        path = self._free(self._path(own) if own else self._scope(node.name) or node.op.lower())
        if weights:
            self._tensors.update(f"{path}{last}" for last in LASTS)
            self._taken.update(self._tensors)
        return path

    def of_constant(self, name: str) -> str:
        """`blocks.0.position` as it is; what a file writes in other characters with underscores."""
        path = self._free(self._path(name.replace(".", "_") if "/" in name else name))
        self._tensors.add(path)
        return path

    def _free(self, path: str) -> str:
        parts = path.split(".")
        while any(".".join(parts[:count]) in self._tensors for count in range(1, len(parts))):
            parts = ["_".join(parts[:2]), *parts[2:]]
        path = ".".join(parts)
        free, number = path, 1
        while free in self._taken or any(taken.startswith(f"{free}.") for taken in self._taken):
            number += 1
            free = f"{path}_{number}"
        self._taken.add(free)
        return free

    def _scope(self, name: str) -> str:
        """`/1/1.0/fn/fn.0/norm/BatchNormalization` → 1.0.fn.0.norm: torch's exporter writes a list before its entry."""
        parts = [part for part in name.split("/") if part]
        parts = parts[:-1] if len(parts) > 1 else parts
        followed = zip(parts, [*parts[1:], ""], strict=False)
        return (
            self._path(".".join(part for part, after in followed if not after.startswith(f"{part}."))) if parts else ""
        )

    def _path(self, name: str) -> str:
        """A path of attributes: letters, digits and underscores between dots."""
        parts = [re.sub(r"\W+", "_", part).strip("_") for part in name.split(".")]
        free = [f"{part}_" if part in self._own else part for part in parts if part]
        return ".".join(free) or "weight"
