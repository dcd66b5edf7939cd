"""The networks, by name: float32 NCHW in [0, 1] → logits, with features from the same forward pass."""

import re

from compress import names
from compress.errors import CompressError
from compress.models.base import Classifier, Features


def build(name: str, *, channels: int, classes: int) -> Classifier:
    """A freshly initialised network; torch's default generator decides its weights."""
    from compress.models.resnet import ResNet
    from compress.models.wideresnet import WideResNet

    if found := re.fullmatch(r"resnet(\d+)", name):
        depth = int(found[1])
        if depth >= 8 and (depth - 2) % 6 == 0:
            return ResNet(depth, channels=channels, classes=classes)
    if found := re.fullmatch(r"wrn-(\d+)-(\d+)", name):
        depth, width = int(found[1]), int(found[2])
        if depth >= 10 and (depth - 4) % 6 == 0 and width >= 1:
            return WideResNet(depth, width, channels=channels, classes=classes)
    names.check("model", name, names.MODELS)
    raise CompressError(f"model {name!r} is known but not built here; please report this")


__all__ = ["Classifier", "Features", "build"]
