"""torch, imported when it is first used, and the types of its tensors and of networks, for annotations alone.

So a method's file and its options are read, without torch; `from __future__ import annotations` goes with it.
"""

import importlib
from typing import TYPE_CHECKING, Any

__all__ = ["Classifier", "Features", "Tensor", "functional", "torch"]

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.nn import functional

    from compress.networks.base import Classifier, Features
else:
    Tensor = Classifier = Features = Any

    class LateModule:
        """Stands for a module until one of its names is asked for."""

        def __init__(self, name: str) -> None:
            self._name = name

        def __getattr__(self, name: str) -> Any:
            return getattr(importlib.import_module(self._name), name)

    torch, functional = LateModule("torch"), LateModule("torch.nn.functional")
