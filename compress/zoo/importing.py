"""From a resolved source to an architecture and its weights, checked against each other."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from compress import networks
from compress.networks import foreign
from compress.networks.base import Classifier
from compress.zoo import catalog, checkpoints, detect
from compress.zoo.checkpoints import ForeignWeights
from compress.zoo.sources import Source
from edge.core.errors import CompressError

#: Checkpoints that hold several sets of weights, and which of them the published figures belong to.
KEYS = {"Andriushchenko2020Understanding": "last"}


@dataclass(frozen=True)
class ImportedNetwork:
    """A network as it will lie in a stage folder. `note` says what was left out or assumed."""

    model: str
    channels: int
    classes: int
    weights: dict[str, Tensor]
    note: str = ""


def import_network(
    source: Source, *, arch: "str | None", normalize: "str | None", key: "str | None", classes: "int | None"
) -> ImportedNetwork:
    """The network behind a source. `classes`: of the data at hand, for sources that can have any number."""
    if source.entry is not None and not source.entry.native:
        return _packaged(source, source.entry.spec, 3, source.entry.classes, key)
    if source.kind == "factory":
        return _packaged(source, f"factory:{source.text}", 3, classes or 0, key)
    if source.kind in ("timm", "torchvision"):
        return _published(source, classes, key)
    (path,) = source.files
    entry = source.entry
    weights = _state(path, key or (KEYS.get(entry.name) if entry else None))
    model = arch or (entry.model if entry else None)
    if weights.mean is not None and model is not None and "+normalize" not in model:
        model += "+normalize"
    if model is not None and entry is not None:  # published files may hold more, which their own loader ignores too
        network = detect.fit_architecture(weights, path, model)
    else:
        network = detect.detect_network(weights, path, model)
    if entry is not None and network.classes != entry.classes:
        raise CompressError(
            f"{path}: its head gives {network.classes} classes, {entry.source} has {entry.classes}; another file?"
        )
    return _normalized(network, weights, normalize, entry.normalization if entry else "")


def _state(path: Path, key: "str | None") -> ForeignWeights:
    return checkpoints.extract_weights(checkpoints.read_checkpoint(path), path, key)


def _normalized(
    network: detect.DetectedNetwork, state: ForeignWeights, chosen: "str | None", known: str
) -> ImportedNetwork:
    """Input normalisation: as told, else the file's own, else the entry's, else what goes with the code it is from."""
    model, weights, notes = network.model, dict(network.weights), []
    if network.ignored:
        notes.append(f"left out {len(network.ignored)} tensors of the file: {detect.first_few(network.ignored)}")
    if chosen == "none":
        model = model.replace("+normalize", "")
        weights = {name: value for name, value in weights.items() if name not in detect.CONSTANTS}
    elif chosen is not None or ("+normalize" in model and state.mean is None):
        name = chosen or known or ("cifar100" if network.classes == 100 else "cifar10")
        if "+normalize" not in model:
            model += "+normalize"
        mean, std = normalization_constants(name, network.channels)
        weights |= {"preprocess.mean": mean, "preprocess.std": std}
        if not (chosen or known):
            notes.append(f"normalised by the {name} constants, as the code it is from does")
    return ImportedNetwork(model, network.channels, network.classes, weights, "; ".join(notes))


def normalization_constants(name: str, channels: int) -> tuple[Tensor, Tensor]:
    """Mean and deviation (1,C,1,1) of a named normalisation, or of one written `m1,m2,m3/s1,s2,s3`."""
    if name in catalog.NORMALIZATIONS:
        mean, std = catalog.NORMALIZATIONS[name]
    else:
        try:
            mean, std = (tuple(float(v) for v in part.split(",")) for part in name.split("/"))
        except ValueError:
            known = ", ".join(["none", *catalog.NORMALIZATIONS])
            raise CompressError(
                f"normalize {name!r}: no such constants (known: {known}, or m1,m2,m3/s1,s2,s3)"
            ) from None
    if len(mean) != channels or len(std) != channels or min(std) <= 0:
        raise CompressError(f"normalize {name!r}: {len(mean)} means and {len(std)} deviations for {channels} channels")
    return torch.tensor(mean).reshape(1, -1, 1, 1), torch.tensor(std).reshape(1, -1, 1, 1)


def _packaged(source: Source, model: str, channels: int, classes: int, key: "str | None") -> ImportedNetwork:
    """A network that another package or the user's own module builds, with the weights of the given files, if any."""
    network = networks.build_network(model, channels=channels, classes=classes)
    if source.files:
        _load_into(network, source, key)
    weights = network.state_dict()
    return ImportedNetwork(model, channels, _classes(network, channels, classes), weights)


def _published(source: Source, classes: "int | None", key: "str | None") -> ImportedNetwork:
    """timm's or torchvision's network, with the given weights or those that the package publishes."""
    if source.files:
        network = networks.build_network(source.text, channels=3, classes=classes or 1000)
        _load_into(network, source, key)
        return ImportedNetwork(source.text, 3, classes or 1000, network.state_dict())
    net, mean, std = foreign.pretrained(source.text)
    weights = {f"net.{name}": value for name, value in net.state_dict().items()}
    weights["preprocess.mean"] = torch.tensor(mean).reshape(1, -1, 1, 1)
    weights["preprocess.std"] = torch.tensor(std).reshape(1, -1, 1, 1)
    return ImportedNetwork(source.text, 3, _classes(net, 3, 1000), weights)


def _load_into(network: Classifier, source: Source, key: "str | None") -> None:
    """The files' weights into a network whose parameter names they use; an ensemble's into its parts, in order."""
    net = getattr(network, "net", network)
    parts = [net] if len(source.files) == 1 else _parts(net, source)
    for part, path in zip(parts, source.files, strict=True):
        state = _state(path, key)
        own = checkpoints.plain_weights(part.state_dict())
        missing = [n for n in own.weights if n not in state.weights and not n.endswith(detect.COUNTER)]
        wrong = [n for n in own.weights if n in state.weights and own.weights[n].shape != state.weights[n].shape]
        if missing or wrong:
            fault = f"{len(missing)} tensors missing ({', '.join(missing[:3])})" if missing else f"{wrong[0]} differs"
            raise CompressError(f"{path}: does not fit {source.text}: {fault}; another file, or another --key?")
        with torch.no_grad():
            for name, value in own.weights.items():  # these are the network's own tensors, whatever their prefix
                if name in state.weights:
                    value.copy_(state.weights[name])
            for mine, theirs in ((own.mean, state.mean), (own.std, state.std)):
                if mine is not None and theirs is not None:
                    mine.copy_(theirs)


def _parts(net: torch.nn.Module, source: Source) -> list[torch.nn.Module]:
    """An ensemble's networks in the order of its files."""
    if hasattr(net, "std_model") and hasattr(net, "rob_model"):
        return [net.std_model, net.rob_model]  # type: ignore[list-item]
    members = getattr(net, "models", None)
    if isinstance(members, torch.nn.ModuleList) and len(members) == len(source.files):
        return list(members)
    raise CompressError(f"{source.text}: {len(source.files)} files for a network of one part; give one with --weights")


def _classes(network: torch.nn.Module, channels: int, classes: int) -> int:
    """How many logits it gives, from its last linear layer."""
    heads = [module.out_features for module in network.modules() if isinstance(module, torch.nn.Linear)]
    return classes or (heads[-1] if heads else 0)
