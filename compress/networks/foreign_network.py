"""A network of another package or of a user as a classifier: its faults under its name, its logits checked."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from compress.networks.base import Classifier, Features, Normalize
from edge.core.errors import CompressError
from edge.core.user_code import user_code


class Foreign(Classifier):
    """A network of another package. What its last linear layer reads are the pooled features."""

    def __init__(self, net: nn.Module, name: str, classes: int, *, normalize: int = 0, probabilities: bool = False):
        super().__init__()
        self.preprocess = Normalize(normalize) if normalize else nn.Identity()
        self.net = net
        self.name = name
        self.probabilities = probabilities
        self.returned: torch.dtype | None = None  # of what the last call gave, before it was taken as float32
        heads = [n for n, m in net.named_modules() if isinstance(m, nn.Linear) and m.out_features == classes]
        self.head = heads[-1] if heads and not probabilities else None
        self.has_features = self.head is not None

    def forward_features(self, x: Tensor) -> Features:
        seen: list[Tensor] = []
        with contextlib.ExitStack() as hooks:
            if self.head is not None:
                head = self.net.get_submodule(self.head)
                hooks.enter_context(head.register_forward_pre_hook(lambda module, args: seen.append(args[0])))
            raw = _called(self.net, self.preprocess(x), self.name)
        logits = _checked_logits(raw, self.name, x)
        self.returned = raw.dtype
        if self.probabilities:
            logits = logits.clamp(min=1e-30).log()
        pooled = seen[0] if len(seen) == 1 and seen[0].ndim == 2 else logits.new_zeros((len(logits), 0))
        return Features(logits, pooled, ())


def _called(forward: Callable[[Tensor], Any], x: Tensor, name: str) -> Any:
    """What code of others makes of images, its faults under its name: the one seam to networks of others."""
    if torch.compiler.is_compiling() or not isinstance(x, Tensor):  # who traces it wants its faults as they are
        return forward(x)
    dtype = str(x.dtype).removeprefix("torch.")
    with user_code(name, "mend its forward, or give it what it takes", f" on images {tuple(x.shape)} {dtype}"):
        return forward(x)


def _checked_logits(logits: Any, name: str, x: Tensor) -> Tensor:
    """One row of class scores an image of `x`, as float32: (N,K)."""
    if not isinstance(logits, Tensor):
        keys = list(logits) if isinstance(logits, Mapping) else []
        held = f" of {', '.join(map(str, keys[:4]))}" if keys else ""
        fix = 'return its "logits" alone' if "logits" in keys else "return logits (N, classes) alone"
        raise CompressError(f"{name}: its forward gives a {type(logits).__name__}{held}; {fix}")
    # an exporter, for which the number of images is open, would take a comparison for its end
    if logits.ndim != 2 or (not torch.compiler.is_compiling() and len(logits) != len(x)):
        flat = logits.ndim > 2 and logits.shape[:2].numel() == logits.numel()
        fix = "flatten it: .flatten(1)" if flat else "logits (N, classes) are needed, wrap it"
        raise CompressError(f"{name}: its forward gives a tensor {tuple(logits.shape)} for {len(x)} images; {fix}")
    if not logits.is_floating_point():
        raise CompressError(f"{name}: its forward gives {logits.dtype} values; logits are needed, before any argmax")
    if logits.layout != torch.strided:
        raise CompressError(f"{name}: its forward gives a sparse tensor; make it dense: .to_dense()")
    if not type(logits).__module__.startswith("torch"):  # a package's own Tensor, whose operators are its own too
        with torch._C.DisableTorchFunctionSubclass():
            logits = logits.as_subclass(Tensor)
    return logits.float()


def guarded(net: Classifier, name: str) -> Classifier:
    """A classifier that a user's function made, called through the seam; its weights keep their names."""
    kind = type(net)

    def forward_features(self: Classifier, x: Tensor) -> Features:
        features = _called(lambda x: kind.forward_features(self, x), x, name)
        if not isinstance(features, Features):
            raise CompressError(f"{name}: its forward_features gives a {type(features).__name__}; return Features")
        if not isinstance(x, Tensor):  # it is traced
            return features
        if isinstance(features.logits, Tensor):
            object.__setattr__(self, "returned", features.logits.dtype)
        return replace(features, logits=_checked_logits(features.logits, name, x))

    net.__class__ = type(kind.__name__, (kind,), {"forward_features": forward_features})
    return net
