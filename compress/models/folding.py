"""BatchNorm folded into the convolution before it, and where quantizers belong, both read off the traced graph."""

from typing import Any

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from compress.models.base import Activation, Add, Classifier, SamePad


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, qualified_name: str) -> bool:
        return isinstance(module, Activation | Add | SamePad) or super().is_leaf_module(module, qualified_name)


def trace(model: Classifier) -> fx.Graph:
    """The operations of `model.forward`, with activations, sums and paddings as modules."""
    return _Tracer().trace(model)


def fold(model: Classifier) -> None:
    """Fold, in place, every BatchNorm whose only input is a convolution that feeds nothing else.

    The folded network computes what the original computes in evaluation mode; the BatchNorm becomes an identity.
    """
    model.eval()
    modules = dict(model.named_modules())
    for node in trace(model).nodes:
        bn = _module(modules, node, nn.BatchNorm2d)
        before: Any = node.args[0] if bn is not None else None
        conv = _module(modules, before, nn.Conv2d)
        if bn is not None and conv is not None and len(before.users) == 1:
            _set(model, before.target, fuse_conv_bn_eval(conv, bn))
            _set(model, node.target, nn.Identity())


def quantizer_sites(model: Classifier) -> dict[str, str]:
    """Which tensors are quantized, quantizer name → module whose values pass it.

    Every activation's output; the two sides of a sum and the input of a convolution or linear layer where these are
    not an activation's output already. Weights are always quantized and not listed.
    """
    modules = dict(model.named_modules())
    sites = {}
    for node in trace(model).nodes:
        if _module(modules, node, Activation) is not None:
            sites[f"{node.target}.output_quantizer"] = node.target
        elif _module(modules, node, nn.Conv2d | nn.Linear) is not None:
            if not _active(modules, node.args[0]):
                sites[f"{node.target}.input_quantizer"] = node.target
        elif _module(modules, node, Add) is not None:
            for side, value in zip(("a", "b"), node.args, strict=True):
                if not _active(modules, value):
                    sites[f"{node.target}.{side}_quantizer"] = node.target
    return sites


def _active(modules: dict[str, nn.Module], node: Any) -> bool:
    return _module(modules, node, Activation) is not None


def _module(modules: dict[str, nn.Module], node: Any, kind: Any) -> Any:
    """The module that a node calls, if it is of that kind."""
    if not isinstance(node, fx.Node) or node.op != "call_module":
        return None
    module = modules[str(node.target)]
    return module if isinstance(module, kind) else None


def _set(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, module)
