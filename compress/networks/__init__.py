"""The networks, by name: float32 NCHW in [0, 1] → logits, with features from the same forward pass. No torch here.

A name is a family's (`wrn-34-10`) with the variant's flags behind it (`wrn-28-10+silu+same+normalize`), that of a
network which another package makes (`timm:NAME`, `torchvision:NAME`), a user's own function, `module:function`, or an
ONNX file, whose weights come with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.names import resolved, with_installed
from edge.core import artifact, errors, plugins
from edge.core.errors import CompressError
from edge.core.user_code import named_arguments

if TYPE_CHECKING:
    from compress.networks.base import Classifier


@dataclass(frozen=True)
class Network:
    """A family of networks: its names, and what builds one. An installed package adds one as an entry point."""

    name: str
    #: build(name, channels=, classes=, flags=) → `Classifier`, freshly initialized; or "module:function". One that
    #: takes `size` is given the images' height and width as well
    build: str | Callable[..., Any]
    #: the names that are offered, without flags → one line on each
    models: Mapping[str, str]
    #: the flags that a variant may have
    flags: frozenset[str] = frozenset({"normalize"})
    #: further names: a pattern of the whole name, and which of its matches exist
    pattern: str | None = None
    allowed: Callable[[re.Match[str]], bool] = field(default=lambda match: True)
    #: patterns that an editor lets pass beside `models`; building is stricter
    editor: tuple[str, ...] = ()

    def has(self, base: str) -> bool:
        """Whether the family has a network of that name, which is without flags."""
        match = re.fullmatch(self.pattern, base) if self.pattern else None
        return base in self.models or (match is not None and self.allowed(match))


def _six(more: int, least: int) -> Callable[[re.Match[str]], bool]:
    """Depths of 6n + `more`, from `least` on."""
    return lambda match: int(match[1]) >= least and (int(match[1]) - more) % 6 == 0


#: A name that two have is the first one's.
FAMILIES = (
    Network(
        "cifar_resnet",
        "compress.networks.small:CifarResNet",
        {
            "resnet8": "CIFAR ResNet, 1 block a stage (75 k parameters)",
            "resnet20": "CIFAR ResNet, 3 blocks a stage (270 k)",
            "resnet32": "CIFAR ResNet, 5 blocks a stage (464 k)",
            "resnet56": "CIFAR ResNet, 9 blocks a stage (853 k)",
        },
        pattern=r"resnet(?!(?:50|152)$)(\d+)",
        allowed=_six(2, 8),
        editor=(r"resnet(14|26|38|44|110)",),
    ),
    Network(
        "resnet",
        "compress.networks.resnet:ResNet",
        {
            "resnet18": "ResNet-18 for small images (11 M)",
            "resnet34": "ResNet-34 for small images (21 M)",
            "resnet50": "ResNet-50 for small images (24 M)",
        },
        pattern=r"resnet(101|152)",
    ),
    Network(
        "preactresnet",
        "compress.networks.resnet:PreActResNet",
        {
            "preactresnet18": "PreActResNet-18 for small images (11 M)",
            "preactresnet34": "PreActResNet-34 for small images (21 M)",
        },
        frozenset({"normalize", "silu", "raw", "final-bn", "same"}),
    ),
    Network(
        "wideresnet",
        "compress.networks.wideresnet:WideResNet",
        {
            "wrn-10-4": "WideResNet, depth 10, width 4 (1.2 M)",
            "wrn-16-2": "WideResNet, depth 16, width 2 (692 k)",
            "wrn-28-10": "WideResNet, depth 28, width 10 (36 M)",
            "wrn-34-10": "WideResNet, depth 34, width 10 (46 M)",
            "wrn-34-20": "WideResNet, depth 34, width 20 (185 M)",
            "wrn-70-16": "WideResNet, depth 70, width 16 (267 M)",
        },
        # sub_block1: a group that the TRADES code makes and never uses; same: TensorFlow's padding; cosine: features
        # and weights of the head at length 1, no bias (Pang et al. 2020)
        frozenset({"normalize", "standardize", "sub_block1", "silu", "pssilu", "same", "cosine"}),
        pattern=r"wrn-(\d+)-[1-9]\d*|wrn-34-r|wrn-a4",
        allowed=lambda match: match[1] is None or _six(4, 10)(match),
        editor=(r"wrn-\d+-\d+", "wrn-34-r", "wrn-a4"),
    ),
    Network(
        "mobilenetv2",
        "compress.networks.mobilenet:MobileNetV2",
        {"mobilenetv2": "MobileNet-V2 for small images, width 1 (2.3 M); mobilenetv2-0.5 has half the width"},
        pattern=r"mobilenetv2-(?!0+(?:\.0+)?$)\d+(?:\.\d+)?",
        editor=(r"mobilenetv2-\d+(\.\d+)?",),
    ),
    Network(
        "mobilenetv3",
        "compress.networks.mobilenet:MobileNetV3",
        {
            "mobilenetv3-small": "MobileNetV3 small, for images around 224×224 (1.5 M)",
            "mobilenetv3-large": "MobileNetV3 large, for images around 224×224 (4.2 M)",
        },
    ),
    Network(
        "vit",
        "compress.networks.vit:VisionTransformer",
        {
            "vit-nano-2": "vision transformer of 4 blocks, 64 wide, patches of 2×2: for images of digits' size (203 k)",
            "vit-ti-4": "ViT-Ti as DeiT has it, patches of 4×4, for images around 32×32 (5.4 M)",
            "vit-ti-16": "ViT-Ti, patches of 16×16, for images around 224×224 (5.5 M)",
            "vit-s-16": "ViT-S, patches of 16×16, for images around 224×224 (22 M)",
        },
        pattern=r"vit-(nano|ti|s|b)-[1-9]\d*",
        editor=(r"vit-(nano|ti|s|b)-\d+",),
    ),
    Network(
        "convnext",
        "compress.networks.convnext:ConvNeXt",
        {
            "convnext-yocto-1": "ConvNeXt of 5 blocks, 16 to 128 wide, stem 1×1: for images of digits' size (270 k)",
            "convnext-atto-1": "ConvNeXt atto, stem 1×1, for images around 32×32 (3.4 M)",
            "convnext-atto-4": "ConvNeXt atto as timm has it, stem 4×4, for images around 224×224 (3.4 M)",
            "convnext-femto-4": "ConvNeXt femto, stem 4×4, for images around 224×224 (4.8 M)",
        },
        pattern=r"convnext-(yocto|atto|femto|pico)-[1-9]\d*",
        editor=(r"convnext-(yocto|atto|femto|pico)-\d+",),
    ),
    Network("cnn", "compress.networks.small:CNN", {"cnn": "four plain convolutions (131 k)"}),
)


def families() -> Iterator[Network]:
    """Ours, then those of installed packages, which are imported no sooner than they are asked for.

    A broken one is left out with a line.
    """
    with_installed("networks", (family.name for family in FAMILIES))  # refuses what has a name of ours
    yield from FAMILIES
    yield from plugins.loaded("networks", Network)


def model_names() -> tuple[str, ...]:
    """The names that are offered; `+FLAG` chooses a variant, any depth and width of a family is known."""
    return tuple(name for family in families() for name in family.models)


def find_family(base: str) -> Network:
    """The family that has a network of that name, which is without flags; CompressError for a name of none."""
    for family in families():
        if family.has(base):
            return family
    if base in plugins.installed("networks"):
        plugins.load("networks", base, Network)  # says why it was left out
    errors.known_name("model", base, model_names())
    raise AssertionError(f"{base} is offered by a family that does not have it")


#: Packages whose networks go by `PACKAGE:NAME`; robustbench's come with their weights, as teachers.
PACKAGES = ("timm", "torchvision")
FUNCTION = r"[A-Za-z_][\w.]*:[A-Za-z_]\w*"


def function_of(name: str) -> str | None:
    """`module:function` of a network that a user's function makes; None for every other name."""
    spec = name.removeprefix("factory:")  # as version 0.1 wrote it
    return spec if re.fullmatch(FUNCTION, spec) and spec.partition(":")[0] not in (*PACKAGES, "robustbench") else None


#: How the names of graphs end, and the file in a stage's folder that an adopted or imported one lies in.
GRAPH_SUFFIX, GRAPH_FILE = ".onnx", "model.onnx"


def is_graph_file(path: Path | str) -> bool:
    """Whether a path is that of an ONNX file, there or not, and of no folder."""
    return Path(path).suffix.lower() == GRAPH_SUFFIX and not Path(path).is_dir()


def is_graph(name: str) -> bool:
    """Whether a model is an ONNX file, or a folder that a stage keeps one in."""
    return is_graph_file(name) or ("/" in name and (Path(name).expanduser() / GRAPH_FILE).is_file())


def graph_path(name: str) -> Path | None:
    """The file of a model that is an ONNX graph, None of every other; CompressError where it is not there."""
    if not is_graph(name):
        return None
    path = Path(name).expanduser()
    path = path / GRAPH_FILE if path.is_dir() else path
    if not path.is_file():
        raise CompressError(f"model {name}: no such file; give an ONNX file")
    return path


def graph_sha256(path: Path) -> str:
    """Of an ONNX file, with those that it keeps weights in."""
    import onnx
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    sha256 = artifact.file_sha256(path)
    try:
        stored = onnx.load(path, load_external_data=False).graph.initializer
    except Exception:  # what is no graph is told where it is opened
        return sha256
    beside = {path.parent / ExternalDataInfo(entry).location for entry in stored if uses_external_data(entry)}
    files = {file.name: artifact.file_sha256(file) for file in beside if file.is_file()}
    return artifact.digest({"graph": sha256, **files}) if files else sha256


def checked_model(name: str) -> str:
    """`name` itself when its form or family is known; what it builds, and whether it has the flags, is said later."""
    if is_graph(name):
        return name
    scheme, colon, rest = name.partition(":")
    if colon and ((scheme in PACKAGES and rest) or (function_of(name) and not scheme.endswith(".py"))):
        return name
    if scheme == "robustbench" and colon:
        raise CompressError(
            f"model {name!r}: comes with its weights, as a teacher; `compress teacher list` names what it is"
        )
    if colon and scheme.endswith(".py"):
        raise CompressError(
            f"model {name!r}: names a file; write {Path(scheme).stem}:{rest} and run where it lies, or set PYTHONPATH"
        )
    if colon or "/" in name or name.endswith((".py", ".pt", ".pth", ".safetensors")):
        raise CompressError(
            f"model {name!r}: an architecture is NAME, timm:NAME, torchvision:NAME, module:function or FILE.onnx; a "
            f"file of weights goes with it as --weights"
        )
    find_family(name.partition("+")[0])
    return name


def model_pattern() -> str:
    """What an editor lets pass: names with flags behind them, those of packages and users. Loading is stricter."""
    patterns = [*model_names(), *(pattern for family in families() for pattern in family.editor)]
    return rf"^(({'|'.join(patterns)})(\+[a-z0-9_-]+)*|({'|'.join(PACKAGES)}):.+|{FUNCTION}|.+\.onnx)$"


def build_network(
    name: str,
    *,
    channels: int,
    classes: int,
    size: tuple[int, int] | None = None,
    code: Mapping[str, str] | None = None,
    place: Path | None = None,
) -> Classifier:
    """A freshly initialized network; torch's default generator decides its weights.

    `size`: height and width of its images, for networks whose weights depend on it; None where it is not known. For a
    user's own, `code`: the hashes of its source (`edge.core.user_source`) that it must have, `place`: where that lay.
    """
    if (spec := function_of(name)) is not None:
        from compress.networks import user_factory

        return user_factory.build_factory(spec, channels=channels, classes=classes, size=size, code=code, place=place)
    if ":" in name:
        from compress.networks import foreign

        return foreign.build_foreign(name, channels=channels, classes=classes, size=size)
    base, *flags = name.split("+")
    family = find_family(base)
    for flag in sorted({*flags} - family.flags):
        raise CompressError(
            f"model {base!r} has no variant +{flag} (known: {', '.join(f'+{k}' for k in sorted(family.flags))})"
        )
    build = resolved(family.build)
    sized = {"size": size} if "size" in named_arguments(build) else {}
    network: Classifier = build(base, channels=channels, classes=classes, flags=frozenset(flags), **sized)
    return network
