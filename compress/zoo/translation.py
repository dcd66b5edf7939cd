"""Parameter names of published code, translated to this project's: regular expressions, applied to every key.

A layout is told by a key that only it has. Shapes and depth are for `compress.zoo.detect`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

#: Pattern, and one or several replacements (a tensor that several of our modules share).
Rule = tuple[str, "str | tuple[str, ...]"]


@dataclass(frozen=True)
class Layout:
    """How one code base names a network's weights; `flags` are the variants that go with that code."""

    name: str
    marker: str
    rules: Sequence[Rule]
    flags: "frozenset[str]" = frozenset()


_BLOCK = (
    (r"\bbatchnorm_0\.", "bn1."),
    (r"\bbatchnorm_1\.", "bn2."),
    (r"^batchnorm\.", "bn."),
    (r"^logits\.", "linear."),
)

LAYOUTS = (
    Layout(
        "DeepMind WideResNet",
        r"init_conv\.weight",
        (
            (r"^init_conv\.", "conv1."),
            *((rf"^layer\.{i}\.block\.", f"block{i + 1}.layer.") for i in range(3)),
            (r"\bconv_0\.", "conv1."),
            (r"\bconv_1\.", "conv2."),
            (r"\bshortcut\.", "convShortcut."),
            (r"^batchnorm\.", "bn1."),
            (r"^logits\.", "fc."),
            *_BLOCK[:2],
        ),
        frozenset({"same"}),
    ),
    Layout(
        "DeepMind PreActResNet",
        r"conv_2d\.weight",
        (
            (r"^conv_2d\.", "conv1."),
            *((rf"^layer_{i}\.", f"layer{i + 1}.") for i in range(4)),
            (r"\bconv_2d_1\.", "conv1."),
            (r"\bconv_2d_2\.", "conv2."),
            *_BLOCK,
        ),
        frozenset({"same", "raw"}),
    ),
    Layout(
        "stem_conv WideResNet",
        r"stem_conv\.weight",
        (
            (r"^stem_conv\.", "conv1."),
            *((rf"^blocks\.{i}\.", f"block{i + 1}.") for i in range(3)),
            (r"^norm1\.", "bn1."),
            (r"\bshortcut\.0\.", "convShortcut."),
        ),
    ),
    Layout(
        "WideResNet with a learned activation",
        r"block1\.layer\.0\.activation\.alpha",
        (
            (r"^(block\d\.layer\.\d+\.)activation\.", (r"\1relu1.", r"\1relu2.")),
            (r"^activation\.", "relu."),
        ),
        frozenset({"pssilu"}),
    ),
    Layout("TRADES WideResNet", r"block1\.layer\.0\.conv1\.weight", ((r"^linear\.", "fc."),)),
    Layout("MobileNet-V2", r"layers\.0\.conv3\.weight", ((r"^(?:fc|classifier)\.", "linear."),)),
    Layout("MobileNetV3", r"features\.1\.block\.0\.0\.weight", ()),
    Layout("vision transformer", r"patch_embed\.proj\.weight", ()),
    Layout("ConvNeXt", r"stages\.0\.blocks\.0\.conv_dw\.weight", ()),
    Layout("plain convolutions", r"layers\.0\.0\.weight", ()),
    Layout(
        "PreActResNet",
        r"layer1\.0\.bn1\.weight",
        (
            (r"\bdownsample\.", "shortcut."),
            (r"\bshortcut\.0\.(?=weight$)", "shortcut."),
            (r"^(?:fc|classifier)\.", "linear."),
        ),
    ),
    Layout(
        "ResNet",
        r"layer1\.0\.bn1\.weight",
        ((r"\bdownsample\.", "shortcut."), (r"^(?:fc|classifier)\.", "linear.")),
    ),
)


def translations(weights: Mapping[str, Tensor]) -> "list[tuple[Layout, dict[str, Tensor]]]":
    """The layouts whose marker is among the keys, each with the weights under this project's names."""
    return [
        (layout, _renamed(weights, layout.rules))
        for layout in LAYOUTS
        if any(re.fullmatch(layout.marker, name) for name in weights)
    ]


def _renamed(weights: Mapping[str, Tensor], rules: Sequence[Rule]) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    for name, value in weights.items():
        targets = [name]
        for pattern, replacements in rules:
            several = (replacements,) if isinstance(replacements, str) else replacements
            targets = [re.sub(pattern, replacement, target) for target in targets for replacement in several]
        # A second head, or what else would take the place of a tensor that has this name already, keeps its own
        taken = [target in renamed or (target != name and target in weights) for target in targets]
        renamed |= {name: value} if any(taken) else dict.fromkeys(targets, value)
    return renamed
