"""Networks that other packages define, behind this project's interface: [0, 1] in, logits out, features where found.

timm:NAME   torchvision:NAME   robustbench:DATASET/NAME
"""

import contextlib
import functools
import importlib
import io
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from compress.networks.base import Classifier
from compress.networks.foreign_network import Foreign
from edge.core.errors import CompressError, first_line
from edge.core.user_code import user_code

#: RobustBench entries whose forward gives mean probabilities of an ensemble; their logarithm is a logit.
PROBABILITIES = ("Chen2020Adversarial",)
RGB = 3  # channels that torchvision builds for
AUXILIARY = ("googlenet", "inception_v3")  # give further logits in training, unless told not to


def build_foreign(name: str, *, channels: int, classes: int, size: "tuple[int, int] | None" = None) -> Classifier:
    """The network written `SCHEME:NAME`, with fresh weights, nothing downloaded."""
    scheme, _, rest = name.partition(":")
    if scheme == "timm":
        return _normalized(_timm(rest, channels, classes, size), name, channels, classes)
    if scheme == "torchvision":
        return _normalized(_torchvision(rest, channels, classes, size), name, channels, classes)
    return _robustbench(rest, classes)


def _timm(name: str, channels: int, classes: int, size: "tuple[int, int] | None") -> nn.Module:
    timm = _package("timm", "pip install timm")
    if not timm.is_model(name):
        raise CompressError(f"timm:{name}: timm {timm.__version__} has no model of that name; see timm.list_models()")
    with user_code(f"timm:{name}", "choose another network, or images of another size"):
        return _of_size(
            functools.partial(timm.create_model, name, pretrained=False, num_classes=classes, in_chans=channels),
            "img_size",
            size,
        )


def _of_size(make: Callable[..., nn.Module], argument: str, size: "int | tuple[int, int] | None") -> nn.Module:
    """A package's network for images of that size; one whose weights do not depend on it takes no such argument."""
    if size is not None:
        try:
            return make(**{argument: size})
        except TypeError as fault:
            if argument not in str(fault):
                raise
    return make()


def pretrained(name: str, shape: tuple[int, ...]) -> tuple[nn.Module, Any, Any]:
    """The weights that timm or torchvision publish for `SCHEME:NAME`: the network, mean and deviation by channel.

    `shape`: of its images (C,H,W); timm brings first convolution and position embeddings to it, torchvision does not.
    """
    scheme, _, rest = name.partition(":")
    try:
        if scheme == "timm":
            create = _package("timm", "pip install timm").create_model
            make = functools.partial(create, rest, pretrained=True, in_chans=shape[0])
            net: Any = _of_size(make, "img_size", (shape[1], shape[2]))
            return net, net.pretrained_cfg["mean"], net.pretrained_cfg["std"]
        chosen = _package("torchvision", "pip install torchvision").models.get_model_weights(rest).DEFAULT
        crop = chosen.transforms()
        return _package("torchvision", "").models.get_model(rest, weights=chosen), crop.mean, crop.std
    except (OSError, RuntimeError) as fault:
        raise CompressError(
            f"{name}: its weights could not be fetched ({first_line(fault, 160)}); download them "
            f"elsewhere, give --weights FILE"
        ) from None


def _torchvision(name: str, channels: int, classes: int, size: "tuple[int, int] | None") -> nn.Module:
    models = _package("torchvision", "pip install torchvision").models
    if name not in models.list_models(module=models):
        raise CompressError(f"torchvision:{name}: no classifier of that name; see torchvision.models.list_models()")
    side = size[0] if size is not None and size[0] == size[1] else None
    alone = {"aux_logits": False} if name in AUXILIARY else {}
    make = functools.partial(models.get_model, name, weights=None, num_classes=classes, **alone)
    with user_code(f"torchvision:{name}", "choose another network, or images of another size"):
        net = _of_size(make, "image_size", side)
    if channels != RGB:
        _take_channels(net, channels)
    return net


def _take_channels(net: nn.Module, channels: int) -> None:
    """Let the first convolution take that many channels in place of three; its weights are drawn anew."""
    place, stem = next((place, part) for place, part in net.named_modules() if isinstance(part, nn.Conv2d))
    parent, _, name = place.rpartition(".")
    fresh = nn.Conv2d(
        channels,
        stem.out_channels,
        stem.kernel_size,  # type: ignore[arg-type]
        stem.stride,  # type: ignore[arg-type]
        stem.padding,  # type: ignore[arg-type]
        stem.dilation,  # type: ignore[arg-type]
        bias=stem.bias is not None,
    )
    setattr(net.get_submodule(parent), name, fresh)


def _normalized(net: nn.Module, name: str, channels: int, classes: int) -> Classifier:
    """The network behind the normalization that its package publishes, by default ImageNet's.

    Images of other channels are all normalized by the mean of the three.
    """
    network = Foreign(net, name, classes, normalize=channels)
    config = getattr(net, "pretrained_cfg", None) or {}
    for buffer, default in (("mean", (0.485, 0.456, 0.406)), ("std", (0.229, 0.224, 0.225))):
        network.preprocess.get_buffer(buffer).copy_(by_channel(config.get(buffer, default), channels))
    return network


def by_channel(values: Sequence[float], channels: int) -> Tensor:
    """Constants of three channels for images of `channels`, (1,C,1,1)."""
    tensor = torch.tensor(values)
    return (tensor if len(tensor) == channels else tensor.mean().expand(channels)).reshape(1, -1, 1, 1).clone()


def _robustbench(rest: str, classes: int) -> Classifier:
    dataset, _, name = rest.partition("/")
    # constructors print, and their packages warn; stdout belongs to results
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _package("robustbench", 'pip install "robust-compress[robustbench]"')
        zoo = importlib.import_module("robustbench.model_zoo").model_dicts
        enums = importlib.import_module("robustbench.model_zoo.enums")
        known = zoo[enums.BenchmarkDataset(dataset)][enums.ThreatModel.Linf]
        if name not in known:
            raise CompressError(f"robustbench:{rest}: the installed robustbench has no such model; upgrade it")
        try:
            # some entries are timm models that robustbench registers; their own constructor would download weights
            timm, registered = importlib.import_module("timm"), f"{name.lower().replace('-', '_')}_{dataset}_linf"
            ours = timm.is_model(registered)
            net = timm.create_model(registered, pretrained=False) if ours else known[name]["model"]()
        except (AssertionError, RuntimeError, AttributeError, TypeError) as fault:
            raise CompressError(
                f"robustbench:{rest}: its constructor fails here ({first_line(fault, 160)}); import it "
                f"where that works, "
                f"export it to ONNX and give the .onnx file"
            ) from None
    return Foreign(net, f"robustbench:{rest}", classes, probabilities=name in PROBABILITIES)


def _package(name: str, install: str) -> Any:
    """The package; beside a torch that torchvision was not built for, with the operators' signatures registered.

    torchvision's compiled part does not load there, and its Python part asks torch about these operators on import.
    Network definitions use none of them.
    """
    if "autoattack" not in sys.modules:  # as robustbench imports it; the maintained package is called pyautoattack
        with contextlib.suppress(ImportError):
            sys.modules["autoattack"] = importlib.import_module("pyautoattack")
    while True:
        try:
            return importlib.import_module(name)
        except ImportError as fault:
            raise CompressError(f"{name} cannot be imported ({first_line(fault, 160)}); {install}") from None
        except RuntimeError as fault:
            missing = re.search(r"operator torchvision::(\w+) does not exist", str(fault))
            if missing is None or missing[1] in _REGISTERED:
                raise
        for module in [m for m in sys.modules if m.partition(".")[0] in (name, "torchvision", "timm")]:
            del sys.modules[module]  # half-imported
        library = torch.library.Library("torchvision", "FRAGMENT")
        library.define(f"{missing[1]}(Tensor x) -> Tensor")
        _REGISTERED[missing[1]] = library  # a library that is collected takes its operators along


_REGISTERED: dict[str, torch.library.Library] = {}
