"""The networks, by name: float32 NCHW in [0, 1] → logits, with features from the same forward pass.

A name is a family's (`wrn-34-10`) with the variant's flags behind it (`wrn-28-10+silu+same+normalize`), or the source
and name of a network that another package makes (`timm:NAME`).
"""

from compress import names
from compress.networks.base import Classifier, Features
from edge.core.errors import CompressError


def build_network(name: str, *, channels: int, classes: int) -> Classifier:
    """A freshly initialised network; torch's default generator decides its weights."""
    if ":" in name:
        from compress.networks import foreign

        return foreign.build_foreign(name, channels=channels, classes=classes)
    from compress.networks import cifar_resnet, cnn, mobilenetv2, mobilenetv3, preactresnet, resnet, wideresnet

    base, *flags = name.split("+")
    for family in (resnet, cifar_resnet, preactresnet, wideresnet, mobilenetv2, mobilenetv3, cnn):
        if (found := family.build(base, frozenset(flags), channels, classes)) is not None:
            return found
    names.model(name)
    raise CompressError(f"model {name!r} is known but not built here; please report this")


__all__ = ["Classifier", "Features", "build"]
