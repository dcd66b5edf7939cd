"""Networks that other packages define, behind this project's interface: [0, 1] in, logits out, features where found.

timm:NAME   torchvision:NAME   robustbench:DATASET/NAME   factory:module:function
"""

import contextlib
import importlib
import io
import re
import sys
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from compress.networks.base import Classifier
from compress.networks.foreign_network import Foreign, guarded
from edge.core.errors import CompressError, first_line
from edge.core.user_code import load_function, required_arguments, user_code

#: RobustBench entries whose forward gives mean probabilities of an ensemble; their logarithm is a logit.
PROBABILITIES = ("Chen2020Adversarial",)


def build_foreign(name: str, *, channels: int, classes: int) -> Classifier:
    """The network written `SCHEME:NAME`, with fresh weights, nothing downloaded."""
    scheme, _, rest = name.partition(":")
    builders: dict[str, Callable[[str, int, int], Classifier]] = {
        "timm": _timm,
        "torchvision": _torchvision,
        "robustbench": _robustbench,
        "factory": _factory,
    }
    if scheme not in builders:
        raise CompressError(f"model {name!r}: no source {scheme!r} (known: {', '.join(builders)})")
    return builders[scheme](rest, channels, classes)


def _timm(name: str, channels: int, classes: int) -> Classifier:
    timm = _package("timm", "pip install timm")
    if not timm.is_model(name):
        raise CompressError(f"timm:{name}: timm {timm.__version__} has no model of that name; see timm.list_models()")
    net = timm.create_model(name, pretrained=False, num_classes=classes, in_chans=channels)
    return _normalized(net, f"timm:{name}", channels, classes)


def pretrained(name: str) -> tuple[nn.Module, Any, Any]:
    """The weights that timm or torchvision publish for `SCHEME:NAME`: the network, mean and deviation by channel."""
    scheme, _, rest = name.partition(":")
    try:
        if scheme == "timm":
            net = _package("timm", "pip install timm").create_model(rest, pretrained=True)
            return net, net.pretrained_cfg["mean"], net.pretrained_cfg["std"]
        chosen = _package("torchvision", "pip install torchvision").models.get_model_weights(rest).DEFAULT
        crop = chosen.transforms()
        return _package("torchvision", "").models.get_model(rest, weights=chosen), crop.mean, crop.std
    except (OSError, RuntimeError) as fault:
        raise CompressError(
            f"{name}: its weights could not be fetched ({first_line(fault, 160)}); download them "
            f"elsewhere, give --weights FILE"
        ) from None


def _torchvision(name: str, channels: int, classes: int) -> Classifier:
    models = _package("torchvision", "pip install torchvision").models
    if name not in models.list_models():
        raise CompressError(f"torchvision:{name}: no model of that name; see torchvision.models.list_models()")
    net = models.get_model(name, weights=None, num_classes=classes)
    return _normalized(net, f"torchvision:{name}", channels, classes)


def _normalized(net: nn.Module, name: str, channels: int, classes: int) -> Classifier:
    network = Foreign(net, name, classes, normalize=channels)
    mean, std = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)) if channels == 3 else ((0.5,), (0.5,))
    config = getattr(net, "pretrained_cfg", None) or {}
    for buffer, value in (("mean", config.get("mean", mean)), ("std", config.get("std", std))):
        if len(value) == channels:
            network.preprocess.get_buffer(buffer).copy_(torch.tensor(value).reshape(1, -1, 1, 1))
    return network


def _robustbench(rest: str, channels: int, classes: int) -> Classifier:
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


def _factory(rest: str, channels: int, classes: int) -> Classifier:
    net = call_factory(rest)
    return guarded(net, rest) if isinstance(net, Classifier) else Foreign(net, rest, classes)


def call_factory(text: str) -> nn.Module:
    """What `module:function` returns, called without arguments; modules beside the working directory are found."""
    _, function = load_function(text, text)
    if isinstance(function, nn.Module):
        raise CompressError(f"{text}: is a network, not a function; write a function that makes one and returns it")
    if wanted := required_arguments(function):
        raise CompressError(f"{text}: needs arguments ({', '.join(wanted)}); give a function that needs none")
    with user_code(text, "mend it"):
        network = function()
    if isinstance(network, type):
        raise CompressError(f"{text}: returned the class {network.__name__}; return an object of it")
    if not isinstance(network, nn.Module):
        raise CompressError(f"{text}: returned a {type(network).__name__}; a torch.nn.Module is needed")
    return network


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
