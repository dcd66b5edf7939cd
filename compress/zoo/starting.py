"""A network at the start of its training: drawn by the seed, or from a checkpoint; one of others is tried first."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compress import networks
from compress.data.listing import counted, first_few
from compress.networks import network_files, user_factory
from compress.networks.base import Classifier, count_parameters
from compress.networks.foreign_network import refuse_scripted
from compress.networks.tracing import UntraceableNetwork
from compress.quantization.lowering import lower
from compress.zoo import checkpoints, detect
from compress.zoo.contract import check_again, check_contract, probe_images
from compress.zoo.importing import in_float32
from edge.core.errors import CompressError
from edge.core.progress import say
from edge.validity.logits import probabilities_check

PROBED = 16  # images of noise that show whether it ends in a softmax


def starting_network(
    architecture: dict[str, Any], seed: int, weights: "str | None" = None, key: "str | None" = None
) -> tuple[Classifier, dict[str, Any]]:
    """The described network before its first step, and what its stage's manifest says of how it began.

    The seed decides the weights that it draws, whatever a package draws them with. `weights`: a checkpoint that it
    starts from, `key` the set in it. A network of others is made twice and tried on two images, so that what stops it
    stops it before any work: CompressError.
    """
    name = architecture["model"]
    if "graph" in architecture:
        network, notes = _graph(architecture)
    else:
        network, notes = _tried(architecture, seed) if ":" in name else (_drawn(architecture, seed), [])
    if weights is not None:
        notes.append(_load(network, name, Path(weights).expanduser(), key))
    for note in notes:
        say(f"{name}: {note}")
    return network, {"start": "; ".join(notes)} if notes else {}


def _graph(architecture: dict[str, Any]) -> tuple[Classifier, list[str]]:
    """The network of an ONNX file with the weights that it has there."""
    network = network_files.build_described(architecture)
    check_contract(network.eval(), tuple(architecture["input"]), len(architecture["classes"]), architecture["model"])
    notes = [
        "starts from the weights in the file",
        *architecture["notes"],
        _check_trainable(network, architecture["model"]),
    ]
    return network.train(), [note for note in notes if note]


def _drawn(architecture: dict[str, Any], seed: int) -> Classifier:
    """The network, freshly drawn."""
    torch.manual_seed(seed)
    if ":" in architecture["model"]:  # whose code may draw by other generators
        random.seed(seed)
        np.random.seed(seed % 2**32)
    return network_files.build_described(architecture)


def _tried(architecture: dict[str, Any], seed: int) -> tuple[Classifier, list[str]]:
    """A network of others, in float32, and what is said of it: made twice, and both are one network that can learn."""
    name, shape, classes = architecture["model"], tuple(architecture["input"]), len(architecture["classes"])
    spec, size = networks.function_of(name), (shape[1], shape[2])
    # imported before the seed is set: a module may set its own at its top
    passed = user_factory.passed_arguments(spec, shape[0], classes, size) if spec else ""
    first = _drawn(architecture, seed).eval()
    refuse_scripted(first, name)
    notes = [f"called with {passed}" if passed else "", in_float32(first, name)]
    values = {part: value.clone() for part, value in first.state_dict().items()}
    notes.append(_check_trainable(first, name))
    check_contract(first, shape, classes, name)
    with torch.no_grad():
        check = probabilities_check(first(torch.rand((PROBED, *shape))).numpy())
        if check.fired:
            raise CompressError(f"{name}: its {check.seen}; return the values before its softmax or sigmoid")
        first.train()
        first(probe_images(shape))  # in training it may compute, or return, something else
    first.load_state_dict(values)
    network = _drawn(architecture, seed)
    in_float32(network, name)
    drawn = network.state_dict()
    check_again(network.eval(), first.eval(), shape, name)
    other = [part for part in values if not torch.equal(values[part], drawn[part])]
    if other:
        raise CompressError(
            f"{name}: two calls after one seed draw other weights ({first_few(other)}; {len(other)} of {len(values)}); "
            f"draw them by torch's default generator, without a seed of its own from the clock"
        )
    notes.append(_quantizable(first.eval(), shape))
    return network.train(), [note for note in notes if note]


def _quantizable(network: Classifier, image: tuple[int, ...]) -> str:
    """In words what `quantize` will refuse; it shares weights out, so `network` is one to throw away."""
    try:
        lower(network, image)
    except UntraceableNetwork as fault:
        return f"it can be trained, and quantize will refuse it: {fault}"
    return ""


def _check_trainable(network: Classifier, name: str) -> str:
    """Finite weights, some of which learn; in words how many do not."""
    for part, value in network.state_dict().items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            bad = int((~torch.isfinite(value)).sum())
            raise CompressError(
                f"{name}: {bad} of {value.numel()} values of {part.removeprefix('net.')} are NaN or infinite before "
                f"any training; mend how it is initialized"
            )
    frozen = sum(weight.numel() for weight in network.parameters() if not weight.requires_grad)
    if frozen == count_parameters(network):
        raise CompressError(f"{name}: has no weights that learn; parameters with requires_grad are needed")
    return f"{frozen:,} of its {count_parameters(network):,} weights are frozen and stay as they are" if frozen else ""


def _load(network: Classifier, name: str, path: Path, key: "str | None") -> str:
    """The checkpoint's weights into the network, in words; those of a head of other classes stay behind.

    Everything else of the network must be in the file, in the same shape. Strangers in the file are left out.
    """
    state = checkpoints.extract_weights(checkpoints.read_checkpoint(path), path, key)
    if ":" in name:
        own = checkpoints.plain_weights(getattr(network, "net", network).state_dict())
        mine, theirs = own.weights, state.weights
        for constant, given in ((own.mean, state.mean), (own.std, state.std)):
            if constant is not None and given is not None:
                constant.copy_(given)
    else:
        mine, theirs = network.state_dict(), detect.fit_architecture(state, path, name).weights
    other = [part for part in mine if part in theirs and mine[part].shape != theirs[part].shape]
    missing = [part for part in mine if part not in theirs and not part.endswith(detect.COUNTER)]
    strange = [part for part in theirs if part not in mine]
    head = [part for part in other if _is_head(mine[part], theirs[part])]
    if missing or len(head) < len(other) or len(head) > 2:
        odd = detect.odd_tensors(missing, strange, other, theirs, mine)
        raise CompressError(f"{path}: does not fit {name}: {odd}; another file, or another --key?")
    loaded = [part for part in mine if part in theirs and part not in head]
    with torch.no_grad():
        for part in loaded:
            mine[part].copy_(theirs[part])
    words = [f"starts from {path.name}, {len(loaded)} of {len(mine)} tensors"]
    if head:
        classes = f"{len(mine[head[0]])} classes in place of {len(theirs[head[0]])}"
        words.append(f"{counted(len(head), 'tensor')} drawn anew, for {classes} ({first_few(head)})")
    if strange:
        words.append(f"left out {counted(len(strange), 'tensor')} of the file: {first_few(strange)}")
    return "; ".join(words)


def _is_head(mine: Tensor, theirs: Tensor) -> bool:
    """Whether the shapes differ in the number of rows alone, as a last layer's do for other classes."""
    return mine.ndim in (1, 2) and mine.ndim == theirs.ndim and mine.shape[1:] == theirs.shape[1:]
