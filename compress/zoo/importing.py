"""From a resolved source to an architecture and its weights, checked against each other."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from compress import networks
from compress.data.listing import counted, first_few
from compress.networks import foreign, network_files, user_factory
from compress.networks.base import Classifier
from compress.networks.foreign_network import is_scripted
from compress.zoo import catalog, checkpoints, detect
from compress.zoo.checkpoints import ForeignWeights
from compress.zoo.contract import check_again, probe_images
from compress.zoo.sources import Source
from edge.core.errors import CompressError
from edge.core.progress import say

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
    source: Source,
    *,
    arch: "str | None",
    normalize: "str | None",
    key: "str | None",
    classes: "int | None",
    shape: "tuple[int, ...]",
) -> ImportedNetwork:
    """The network behind a source. `classes` and `shape` (C,H,W): of the data at hand, for sources that can have any.

    Without data classes are None and C is 0; what a factory's network takes is then found by a call.
    """
    if source.entry is not None and not source.entry.native:
        return _packaged(source, source.entry.spec, 3, source.entry.classes, key)
    if source.kind == "factory":
        return _factory(source, classes, shape, key)
    if source.kind in networks.PACKAGES:
        return _published(source, classes, shape, key)
    (path,) = source.files
    entry = source.entry
    weights = _state(path, key or (KEYS.get(entry.name) if entry else None))
    model = arch or (entry.model if entry else None)
    if weights.mean is not None and model is not None and "+normalize" not in model:
        model += "+normalize"
    if model is not None and entry is not None:  # published files may hold more, which their own loader ignores too
        network = detect.fit_architecture(weights, path, model, (shape[1], shape[2]))
    else:
        network = detect.detect_network(weights, path, model, (shape[1], shape[2]))
    if entry is not None and network.classes != entry.classes:
        raise CompressError(
            f"{path}: its head gives {network.classes} classes, {entry.source} has {entry.classes}; another file?"
        )
    made = _normalized(network, weights, normalize, entry.normalization if entry else "", path)
    if model is not None or "cosine" not in network.model.split("+"):
        return made
    guess = f"no fc.bias: read as a cosine head, {made.model}; a Linear layer without bias needs a module:function"
    say(f"{path}: {guess}")
    return replace(made, note="; ".join(filter(None, (made.note, guess))))


def _state(path: Path, key: "str | None") -> ForeignWeights:
    return checkpoints.extract_weights(checkpoints.read_checkpoint(path), path, key)


def _normalized(
    network: detect.DetectedNetwork, state: ForeignWeights, chosen: "str | None", known: str, where: Path
) -> ImportedNetwork:
    """Input normalization: as told, else the file's own, else the entry's, else what goes with the code it is from."""
    model, weights = network.model, dict(network.weights)
    notes = [state.note] if state.note else []
    if network.ignored:
        notes.append(left_out(network.ignored, where))
    if chosen == "none":
        model = model.replace("+normalize", "")
        weights = {name: value for name, value in weights.items() if name not in detect.CONSTANTS}
    elif chosen is not None or ("+normalize" in model and state.mean is None):
        name = chosen or known or ("cifar100" if network.classes == 100 else "cifar10")
        if "+normalize" not in model:
            model += "+normalize"
        mean, std = normalization_tensors(name, network.channels)
        weights |= {"preprocess.mean": mean, "preprocess.std": std}
        if not (chosen or known):
            guess = f"guessed from its {network.classes} classes; --normalize gives others"
            notes.append(f"normalized by the {name} constants, as the code it is from does ({guess})")
            say(f"{where}: {notes[-1]}")
    return ImportedNetwork(model, network.channels, network.classes, weights, "; ".join(notes))


def normalization_tensors(name: str, channels: int) -> tuple[Tensor, Tensor]:
    """Mean and deviation (1,C,1,1) of a named normalization, or of one written `m1,m2,m3/s1,s2,s3`."""
    mean, std = catalog.normalization_constants(name, channels)
    return torch.tensor(mean).reshape(1, -1, 1, 1), torch.tensor(std).reshape(1, -1, 1, 1)


def _packaged(source: Source, model: str, channels: int, classes: int, key: "str | None") -> ImportedNetwork:
    """A network that another package builds, with the weights of the given files, if any."""
    network = networks.build_network(model, channels=channels, classes=classes)
    note = _load_into(network, source, key) if source.files else ""
    return ImportedNetwork(model, channels, classes or _classes(network), network.state_dict(), note)


def _factory(source: Source, classes: "int | None", shape: "tuple[int, ...]", key: "str | None") -> ImportedNetwork:
    """The network of a user's function, with the weights of the given files, if any.

    A second call with the same weights must give the same logits: that is how later stages open it.
    """
    notes: list[str] = []
    size = (shape[1], shape[2])
    network = networks.build_network(source.text, channels=shape[0], classes=classes or 0, size=size).eval()
    if passed := user_factory.passed_arguments(source.text, shape[0], classes or 0, size):
        notes.append(f"called with {passed}")
        say(f"{source.text}: {notes[-1]}")
    if source.files:
        notes += filter(None, [_load_into(network, source, key)])
    if is_scripted(network):
        notes.append("is TorchScript: it can teach and be attacked, not be trained, quantized or exported")
        say(f"{source.text}: {notes[-1]}")
    if note := in_float32(network, source.text):
        notes.append(note)
        say(f"{source.text}: {note}")
    weights = network.state_dict()
    shape, logits = _first_answer(network, shape)
    if classes is None:
        notes.append(f"takes images {shape}, as a call without --data shows")
        say(f"{source.text}: {notes[-1]}")
    outputs = int(logits.shape[1])
    again = networks.build_network(source.text, channels=shape[0], classes=classes or outputs, size=size).eval()
    check_again(network, again, shape, source.text)
    return ImportedNetwork(source.text, shape[0], classes or outputs, weights, "; ".join(notes))


def _first_answer(network: Classifier, shape: "tuple[int, ...]") -> "tuple[tuple[int, ...], Tensor]":
    """The images (C,H,W) that the network takes and its logits for two: C as given, else 3, else as its first layer."""
    stems = [module.in_channels for module in network.modules() if isinstance(module, torch.nn.Conv2d)]
    tried = [shape[0]] if shape[0] else list(dict.fromkeys([3, *stems[:1], 1]))
    faults = []
    for channels in tried:
        images = probe_images((channels, *shape[1:]))
        try:
            with torch.no_grad():
                return (channels, *shape[1:]), network(images)
        except CompressError as fault:
            faults.append(fault)
    if shape[0]:
        raise faults[0]
    raise CompressError(f"{faults[0]}; which images it takes is not known without --data, --image-size says their size")


def in_float32(network: Classifier, name: str) -> str:
    """Its weights as float32, in place, as a file will hold them; in words where they were of another type.

    Anything in its state that a weights file cannot hold is a CompressError that names it.
    """
    state = network.state_dict()
    for key, value in state.items():
        if not isinstance(value, Tensor) or torch.nn.parameter.is_lazy(value):
            what = "not initialized yet (a lazy layer)" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        elif value.is_meta or value.layout != torch.strided or value.is_quantized:
            what = "without values (meta)" if value.is_meta else "sparse or quantized"
        elif not value.is_floating_point() and value.dtype not in network_files.DTYPES:
            what = f"of {value.dtype}"
        else:
            continue
        raise CompressError(
            f"{name}: its state holds {key.removeprefix('net.')}, which is {what} and cannot be kept as a weight; "
            f"convert it, or keep it out of the state (register_buffer(…, persistent=False))"
        )
    other = sorted({str(value.dtype) for value in state.values() if value.is_floating_point()} - {"torch.float32"})
    if not other:
        return ""
    network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()}, assign=True)
    return f"its weights in {', '.join(other)} are kept as float32".replace("torch.", "")


def _published(source: Source, classes: "int | None", shape: "tuple[int, ...]", key: "str | None") -> ImportedNetwork:
    """timm's or torchvision's network, with the given weights or those that the package publishes."""
    if source.files:
        channels, size = shape[0] or 3, (shape[1], shape[2])
        network = networks.build_network(source.text, channels=channels, classes=classes or 1000, size=size)
        note = _load_into(network, source, key)
        return ImportedNetwork(source.text, channels, classes or 1000, network.state_dict(), note)
    channels = shape[0] if shape[0] and source.kind == "timm" else 3
    net, mean, std = foreign.pretrained(source.text, (channels, shape[1], shape[2]))
    published, note = (getattr(net, "pretrained_cfg", None) or {}).get("input_size"), ""
    if published is not None and tuple(published) != (channels, *shape[1:]):
        note = f"published for images {tuple(published)}, taken for {(channels, *shape[1:])}"
        say(f"{source.text}: {note}")
    weights = {f"net.{name}": value for name, value in net.state_dict().items()}
    weights["preprocess.mean"] = foreign.by_channel(mean, channels)
    weights["preprocess.std"] = foreign.by_channel(std, channels)
    return ImportedNetwork(source.text, channels, _classes(net) or 1000, weights, note)


def _load_into(network: Classifier, source: Source, key: "str | None") -> str:
    """The files' weights into a network whose parameter names they use; an ensemble's into its parts, in order.

    Tensors of the files that it has no place for, constants of input normalization too, are left out and said; the
    stage's note is returned.
    """
    net = getattr(network, "net", network)
    ignored: list[str] = []
    notes: list[str] = []
    parts = [net] if len(source.files) == 1 else _parts(net, source)
    for part, path in zip(parts, source.files, strict=True):
        state = _state(path, key)
        own = checkpoints.plain_weights(part.state_dict())
        missing = [n for n in own.weights if n not in state.weights and not n.endswith(detect.COUNTER)]
        wrong = [n for n in own.weights if n in state.weights and own.weights[n].shape != state.weights[n].shape]
        strange = [n for n in state.weights if n not in own.weights]
        places = {"mean": own.mean, "mu": own.mean, "std": own.std, "sigma": own.std}
        strange += [n for n in state.constants if places[n.rpartition(".")[2]] is None]
        if missing or wrong:
            odd = detect.odd_tensors(missing, strange, wrong, state.weights, own.weights)
            raise CompressError(f"{path}: does not fit {source.text}: {odd}; another file, or another --key?")
        ignored += strange
        notes += [state.note] if state.note else []
        with torch.no_grad():
            for name, value in own.weights.items():  # these are the network's own tensors, whatever their prefix
                if name in state.weights:
                    value.copy_(state.weights[name])
            for mine, theirs in ((own.mean, state.mean), (own.std, state.std)):
                if mine is not None and theirs is not None:
                    mine.copy_(theirs)
    return "; ".join([*notes, *([left_out(ignored, source.text)] if ignored else [])])


def left_out(names: "Sequence[str]", where: object) -> str:
    """What a file holds beyond the network, said and returned for the stage's note."""
    note = f"left out {counted(len(names), 'tensor')} of the file: {first_few(names)}"
    say(f"{where}: {note}")
    return note


def _parts(net: torch.nn.Module, source: Source) -> list[torch.nn.Module]:
    """An ensemble's networks in the order of its files."""
    if hasattr(net, "std_model") and hasattr(net, "rob_model"):
        return [net.std_model, net.rob_model]  # type: ignore[list-item]
    members = getattr(net, "models", None)
    if isinstance(members, torch.nn.ModuleList) and len(members) == len(source.files):
        return list(members)
    raise CompressError(f"{source.text}: {len(source.files)} files for a network of one part; give one with --weights")


def _classes(network: torch.nn.Module) -> int:
    """How many logits it gives, from its last linear layer; 0 where it has none."""
    heads = [module.out_features for module in network.modules() if isinstance(module, torch.nn.Linear)]
    return heads[-1] if heads else 0
