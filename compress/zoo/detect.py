"""Which of this project's networks a set of weights belongs to, from its keys and shapes alone.

Depth, widths, flags, channels and classes are read off; then the network is built without memory and every key and
shape compared. What weights cannot show (the activation, where a shortcut begins) leaves several candidates: all are
named and the user decides.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from compress import networks
from compress.data.listing import counted, first_few
from compress.networks import convnext, resnet, vit
from compress.networks.wideresnet import UNEQUAL
from compress.zoo.checkpoints import ForeignWeights
from compress.zoo.translation import Layout, translations
from edge.core.errors import CompressError

STEMS = ("conv1.weight", "features.0.0.weight", "layers.0.0.weight", "patch_embed.proj.weight", "stem.0.weight")
HEADS = ("linear.weight", "fc.weight", "classifier.3.weight", "head.weight", "head.fc.weight")
COUNTER = "num_batches_tracked"  # missing from files older than torch 0.4.1; of no use in evaluation
CONSTANTS = ("preprocess.mean", "preprocess.std")


@dataclass(frozen=True)
class DetectedNetwork:
    """An architecture that fits: its name, input channels, classes, and the weights under its own names."""

    model: str
    channels: int
    classes: int
    weights: dict[str, Tensor]
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True)
class Misfit:
    """Why weights are not those of an architecture: how many tensors are odd, and the first of them."""

    odd: int
    text: str


#: Height and width of the images that the weights are for, None where that is not known.
Size = tuple[int, int] | None


def detect_network(state: ForeignWeights, path: Path, arch: "str | None" = None, size: Size = None) -> DetectedNetwork:
    """The one network that fits the weights; `arch` decides where several do, or says what to try.

    Tensors of strangers, a loss or a second head that stand beside the network, are left out and listed. One inside it,
    in a block, is a part that the network would lack: then it does not fit.
    """
    if arch is not None:
        network = fit_architecture(state, path, arch, size)
        inside = _inside(network)
        if len(inside) > 0.1 * len(network.weights):
            raise CompressError(
                f"{path}: {arch} has no place for {len(inside)} of the file's tensors "
                f"({first_few(inside)}); give another --arch"
            )
        return network
    fits: list[DetectedNetwork] = []
    misfits: dict[str, Misfit] = {}
    for model, match in _guessed(state, size):
        if isinstance(match, DetectedNetwork) and (inside := _inside(match)):
            match = Misfit(len(inside), odd_tensors([], inside, [], {}, {}))
        if isinstance(match, DetectedNetwork):
            fits.append(match)
        else:
            misfits[model] = match
    least = min((len(network.ignored) for network in fits), default=0)
    networks = {network.model: network for network in fits if len(network.ignored) == least}
    if not networks:
        near = min(misfits, key=lambda model: misfits[model].odd, default=None)
        nearest = f"; nearest is {near}: {misfits[near].text}" if near is not None else ""
        raise CompressError(
            f"{path}: its {len(state.weights)} tensors ({first_few(list(state.weights))}) fit no architecture known "
            f"here{nearest}; name one with --arch, or give a factory module:function as the source and this file as "
            f"--weights"
        )
    if len(networks) > 1:
        raise CompressError(
            f"{path}: fits {' and '.join(networks)}, which weights alone cannot tell apart; choose one with --arch"
        )
    return next(iter(networks.values()))


def _inside(network: DetectedNetwork) -> list[str]:
    """The left-out tensors whose names begin as some of the network's do, and further tokens of a transformer."""
    roots = {name.partition(".")[0] for name in network.weights}
    return [name for name in network.ignored if name.partition(".")[0] in roots or name.endswith(("_token", "_tokens"))]


def fit_architecture(state: ForeignWeights, path: Path, model: str, size: Size = None) -> DetectedNetwork:
    """The weights as those of `model`, whatever the layout; keys that it has no place for are ignored and listed."""
    misfits = []
    for _, weights in [*translations(state.weights), (None, dict(state.weights))]:
        match = _matched(model, weights, state, size)
        if isinstance(match, DetectedNetwork):
            return match
        misfits.append(match)
    nearest = min(misfits, key=lambda misfit: misfit.odd)
    raise CompressError(f"{path}: does not fit {model}: {nearest.text}; another --arch, or another file?")


def _guessed(state: ForeignWeights, size: Size) -> "Iterator[tuple[str, DetectedNetwork | Misfit]]":
    """Every network that the names suggest, and how the weights fit it."""
    for layout, weights in translations(state.weights):
        for model in _guesses(layout, weights, normalized=state.mean is not None):
            yield model, _matched(model, weights, state, size)


def _guesses(layout: Layout, weights: Mapping[str, Tensor], normalized: bool) -> Iterator[str]:
    """Names that these weights might go by: bases times the flags that cannot be seen."""
    has = set(weights)
    base = _base(layout, weights)
    if base is None:
        return
    flags = sorted(layout.flags)
    hidden: list[tuple[str, ...]] = [()]
    if layout.name.startswith("DeepMind") or base == "wrn-a4":
        hidden = [("silu",), ()]
    elif base.startswith("preactresnet"):
        hidden = [("raw",), ()]
    if base.startswith("preactresnet") and "bn.weight" in has:
        flags.append("final-bn")
    if any(name.startswith("sub_block1.") for name in has):
        flags.append("sub_block1")
    if base.startswith("wrn") and "fc.weight" in has and "fc.bias" not in has:
        flags.append("cosine")
    if normalized or layout.name.startswith("DeepMind"):  # whose code always normalises, with constants of its own
        flags.append("normalize")
    for more in hidden:
        yield "+".join([base, *more, *flags])


def _base(layout: Layout, weights: Mapping[str, Tensor]) -> "str | None":
    """Family, depth and width, read off the keys."""
    if "WideResNet" in layout.name:
        blocks = tuple(_count(weights, f"block{i}.layer") for i in (1, 2, 3))
        firsts = [weights.get(f"block{i}.layer.0.conv1.weight") for i in (1, 2, 3)]
        widths = tuple(int(first.shape[0]) for first in firsts if first is not None)
        for name, known in UNEQUAL.items():
            if (blocks, widths) == known:
                return name
        width = widths[0] // 16 if widths else 0
        equal = len(set(blocks)) == 1 and widths == (16 * width, 32 * width, 64 * width)
        return f"wrn-{6 * blocks[0] + 4}-{width}" if equal else None
    if layout.name == "MobileNet-V2":
        last = weights.get("conv2.weight")
        if last is None:
            return None
        multiplier = last.shape[1] / 320
        return "mobilenetv2" if multiplier == 1 else f"mobilenetv2-{multiplier:g}"
    if layout.name == "MobileNetV3":
        return "mobilenetv3-large" if "features.16.0.weight" in weights else "mobilenetv3-small"
    if layout.name == "plain convolutions":
        return "cnn"
    if layout.name == "vision transformer":
        projection = weights["patch_embed.proj.weight"]
        width, depth = projection.shape[0], _count(weights, "blocks")
        shape = next((name for name, known in vit.SHAPES.items() if known[:2] == (width, depth)), None)
        return None if shape is None else f"vit-{shape}-{projection.shape[-1]}"
    if layout.name == "ConvNeXt" and "stem.0.weight" in weights:
        stem = weights["stem.0.weight"]
        depths = tuple(_count(weights, f"stages.{i}.blocks") for i in range(4))
        shape = next(
            (name for name, (d, w) in convnext.STAGES.items() if (d, w[0]) == (depths, stem.shape[0])),
            None,
        )
        return None if shape is None else f"convnext-{shape}-{stem.shape[-1]}"
    depths = tuple(_count(weights, f"layer{i}") for i in (1, 2, 3, 4))
    pre_activated = "bn1.weight" not in weights
    if ("PreAct" in layout.name) != pre_activated:
        return None
    if pre_activated:
        return next((name for name, known in resnet.PREACT_DEPTHS.items() if known == depths), None)
    if not depths[3]:
        return f"resnet{6 * depths[0] + 2}"
    bottleneck = "layer1.0.conv3.weight" in weights
    return next((name for name, known in resnet.DEPTHS.items() if known == (depths, bottleneck)), None)


def _count(weights: Mapping[str, Tensor], prefix: str) -> int:
    """How many numbered children a prefix has."""
    numbers = {match[1] for name in weights if (match := re.match(rf"{re.escape(prefix)}\.(\d+)\.", name))}
    return len(numbers)


def _matched(
    model: str, weights: Mapping[str, Tensor], state: ForeignWeights, size: Size
) -> "DetectedNetwork | Misfit":
    """`weights` as those of `model`; what is left over is for the caller to judge."""
    heads = [name for name in HEADS if name in weights]
    stem = next((weights[name] for name in STEMS if name in weights and weights[name].ndim == 4), None)
    if not heads or stem is None:
        return Misfit(len(weights), "it has no classifier or no convolution")
    for head in heads:  # the second one is a stranger's, or the first
        classes, channels = int(weights[head].shape[0]), int(stem.shape[1])
        with torch.device("meta"):
            wanted = networks.build_network(model, channels=channels, classes=classes, size=size).state_dict()
        if head in wanted:
            break
    wrong = [n for n in wanted if n in weights and wanted[n].shape != weights[n].shape]
    missing = [n for n in wanted if n not in weights and not n.endswith(COUNTER) and n not in CONSTANTS]
    ignored = tuple(name for name in weights if name not in wanted)
    if wrong or missing:
        text = odd_tensors(missing, ignored, wrong, weights, wanted) + _other_size(weights, wrong)
        return Misfit(len(wrong) + len(missing) + len(ignored), text)
    chosen = {name: weights[name] for name in wanted if name in weights}
    chosen |= {
        name: torch.zeros((), dtype=torch.int64) for name in wanted if name.endswith(COUNTER) and name not in weights
    }
    if "preprocess.mean" in wanted and state.mean is not None and state.std is not None:
        chosen |= {"preprocess.mean": state.mean.reshape(1, -1, 1, 1), "preprocess.std": state.std.reshape(1, -1, 1, 1)}
    return DetectedNetwork(model, channels, classes, chosen, ignored)


def _other_size(weights: Mapping[str, Tensor], wrong: Sequence[str]) -> str:
    """For which images a transformer's weights are, where they are not for these."""
    side = _square(weights) if "pos_embed" in wrong else None
    return f"; its positions are for images of {side}×{side}: --image-size {side}, or data of that size" if side else ""


def _square(weights: Mapping[str, Tensor]) -> "int | None":
    """The side of the square images whose patches, and a class token, a transformer has positions for."""
    patches, patch = weights["pos_embed"].shape[1] - 1, weights["patch_embed.proj.weight"].shape[-1]
    return math.isqrt(patches) * patch if math.isqrt(patches) ** 2 == patches else None


def odd_tensors(
    missing: Sequence[str],
    strange: Sequence[str],
    wrong: Sequence[str],
    theirs: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
) -> str:
    """What keeps a file from fitting: tensors that it lacks, that only it has, those of another shape; few of each."""
    shapes = [f"{n} has shape {tuple(theirs[n].shape)}, needed {tuple(wanted[n].shape)}" for n in wrong]
    kinds = ((missing, "missing"), (shapes, "of another shape"), (strange, "left over"))
    return ", ".join(f"{counted(len(names), 'tensor')} {what} ({first_few(names)})" for names, what in kinds if names)
