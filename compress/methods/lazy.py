"""torch, imported when it is first used: a method's file and its options can be read without it."""

import importlib
from typing import TYPE_CHECKING, Any

__all__ = ["functional", "torch"]

if TYPE_CHECKING:
    import torch
    from torch.nn import functional
else:

    class LateModule:
        """Stands for a module until one of its names is asked for."""

        def __init__(self, name: str) -> None:
            self._name = name

        def __getattr__(self, name: str) -> Any:
            return getattr(importlib.import_module(self._name), name)

    torch = LateModule("torch")
    functional = LateModule("torch.nn.functional")
