"""Networks that other packages define, behind this project's interface: [0, 1] in, logits out, features where found.

timm:NAME   torchvision:NAME   robustbench:DATASET/NAME   factory:module:function
"""

import contextlib
import importlib
import io
import re
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from compress.networks.base import Classifier, Features, Normalize
from edge.core.errors import CompressError, first_line
from edge.core.user_code import load_function, required_arguments, user_code

#: RobustBench entries whose forward gives mean probabilities of an ensemble; their logarithm is a logit.
PROBABILITIES = ("Chen2020Adversarial",)


class Foreign(Classifier):
    """A network of another package. What its last linear layer reads are the pooled features."""

    def __init__(self, net: nn.Module, name: str, classes: int, *, normalize: int = 0, probabilities: bool = False):
        super().__init__()
        self.preprocess = Normalize(normalize) if normalize else nn.Identity()
        self.net = net
        self.name = name
        self.probabilities = probabilities
        self.returned: torch.dtype | None = None  # of what the last call gave, before it was taken as float32
        heads = [n for n, m in net.named_modules() if isinstance(m, nn.Linear) and m.out_features == classes]
        self.head = heads[-1] if heads and not probabilities else None
        self.has_features = self.head is not None

    def forward_features(self, x: Tensor) -> Features:
        seen: list[Tensor] = []
        with contextlib.ExitStack() as hooks:
            if self.head is not None:
                head = self.net.get_submodule(self.head)
                hooks.enter_context(head.register_forward_pre_hook(lambda module, args: seen.append(args[0])))
            raw = _called(self.net, self.preprocess(x), self.name)
        logits = _checked_logits(raw, self.name, x)
        self.returned = raw.dtype
        if self.probabilities:
            logits = logits.clamp(min=1e-30).log()
        pooled = seen[0] if len(seen) == 1 and seen[0].ndim == 2 else logits.new_zeros((len(logits), 0))
        return Features(logits, pooled, ())


def _called(forward: Callable[[Tensor], Any], x: Tensor, name: str) -> Any:
    """What code of others makes of images, its faults under its name: the one seam to networks of others."""
    if torch.compiler.is_compiling() or not isinstance(x, Tensor):  # who traces it wants its faults as they are
        return forward(x)
    dtype = str(x.dtype).removeprefix("torch.")
    with user_code(name, "mend its forward, or give it what it takes", f" on images {tuple(x.shape)} {dtype}"):
        return forward(x)


def _checked_logits(logits: Any, name: str, x: Tensor) -> Tensor:
    """One row of class scores an image of `x`, as float32: (N,K)."""
    if not isinstance(logits, Tensor):
        keys = list(logits) if isinstance(logits, Mapping) else []
        held = f" of {', '.join(map(str, keys[:4]))}" if keys else ""
        fix = 'return its "logits" alone' if "logits" in keys else "return logits (N, classes) alone"
        raise CompressError(f"{name}: its forward gives a {type(logits).__name__}{held}; {fix}")
    # an exporter, for which the number of images is open, would take a comparison for its end
    if logits.ndim != 2 or (not torch.compiler.is_compiling() and len(logits) != len(x)):
        flat = logits.ndim > 2 and logits.shape[:2].numel() == logits.numel()
        fix = "flatten it: .flatten(1)" if flat else "logits (N, classes) are needed, wrap it"
        raise CompressError(f"{name}: its forward gives a tensor {tuple(logits.shape)} for {len(x)} images; {fix}")
    if not logits.is_floating_point():
        raise CompressError(f"{name}: its forward gives {logits.dtype} values; logits are needed, before any argmax")
    if logits.layout != torch.strided:
        raise CompressError(f"{name}: its forward gives a sparse tensor; make it dense: .to_dense()")
    if not type(logits).__module__.startswith("torch"):  # a package's own Tensor, whose operators are its own too
        with torch._C.DisableTorchFunctionSubclass():
            logits = logits.as_subclass(Tensor)
    return logits.float()


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
    return _normalized(models.get_model(name, weights=None, num_classes=classes), name, channels, classes)


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
    return Foreign(net, name, classes, probabilities=name in PROBABILITIES)


def _factory(rest: str, channels: int, classes: int) -> Classifier:
    net = call_factory(rest)
    return _guarded(net, rest) if isinstance(net, Classifier) else Foreign(net, rest, classes)


def _guarded(net: Classifier, name: str) -> Classifier:
    """A classifier that a user's function made, called through the seam; its weights keep their names."""
    kind = type(net)

    def forward_features(self: Classifier, x: Tensor) -> Features:
        features = _called(lambda x: kind.forward_features(self, x), x, name)
        if not isinstance(features, Features):
            raise CompressError(f"{name}: its forward_features gives a {type(features).__name__}; return Features")
        if not isinstance(x, Tensor):  # it is traced
            return features
        if isinstance(features.logits, Tensor):
            object.__setattr__(self, "returned", features.logits.dtype)
        return replace(features, logits=_checked_logits(features.logits, name, x))

    net.__class__ = type(kind.__name__, (kind,), {"forward_features": forward_features})
    return net


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
