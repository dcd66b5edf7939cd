"""A network's files in a stage folder: `model.json` says what it is, `weights.safetensors` holds it.

Of one that came as an ONNX file, `graph.onnx` is that graph without the values that the weights file holds.
"""

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, load_file

from compress import networks
from compress.networks.base import Classifier
from compress.networks.foreign_network import Foreign
from compress.networks.found_features import NamedFeatures
from compress.networks.graph.student_graph import read_student, with_zeros, without_values
from compress.networks.graph.trainable import OnnxNetwork
from edge.core import artifact, errors
from edge.core.errors import CompressError
from edge.core.user_source import find_source

ARCHITECTURE = "model.json"
ONNX = "onnx"  # the architecture of a network that is nothing but a graph
DTYPES = {torch.float32: "F32", torch.int64: "I64", torch.int32: "I32", torch.uint8: "U8", torch.bool: "BOOL"}
WEIGHTS = "weights.safetensors"
GRAPH = "graph.onnx"
#: Of a description what stays out of `model.json`: where a user's source lies, a graph's bytes, what was said of it.
TRANSIENT = ("place", "graph", "notes")
PROBABILITIES = "probabilities"


def describe_network(
    name: str,
    input_shape: tuple[int, ...],
    classes: Sequence[str],
    *,
    probabilities: bool = False,
    features: "Mapping[str, Any] | None" = None,
) -> dict[str, Any]:
    """What must be known to build a network for images (C,H,W) of these classes.

    Of one that gives `probabilities` the logarithm is taken wherever it is opened. Of a user's own, its source as it is
    now: `code` is part of the description, `place`, where it lies, stays out of the file. `features`: modules that a
    user names.
    """
    outputs = {"outputs": PROBABILITIES} if probabilities else {}
    named = {"features": dict(features)} if features else {}
    spec = networks.function_of(name)
    source = find_source(spec) if spec else None
    own = {"code": source.hashes(), "place": source.place} if source else {}
    return {"model": spec or name, "input": list(input_shape), "classes": list(classes), **outputs, **own, **named}


def describe_graph(
    path: Path,
    content: bytes,
    input_shape: "tuple[int, ...]",
    classes: Sequence[str],
    features: "Mapping[str, Any] | None" = None,
) -> dict[str, Any]:
    """Of the student in the ONNX file at `path`: `graph` is its graph, `notes` what was changed in it."""
    graph = read_student(content, input_shape, str(path))
    if graph.classes != len(classes):
        raise CompressError(
            f"{path}: tells {graph.classes} classes apart, the data has {len(classes)}; give the --data it is for"
        )
    return {
        "model": _file_name(path) if path.name == networks.GRAPH_FILE else path.name,
        "input": list(input_shape),
        "classes": list(classes),
        **({"outputs": PROBABILITIES} if graph.probabilities else {}),
        **({"features": dict(features)} if features else {}),
        "graph": graph.proto.SerializeToString(),
        "notes": graph.notes,
    }


def _file_name(path: Path) -> str:
    """How the graph in a stage's folder is called: as the file that it came from."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        manifest = json.loads((path.parent / artifact.MANIFEST).read_text(encoding="utf-8"))
        source = manifest["metrics"].get("adopted") or manifest["plan"]["config"]["source"]
        return Path(source).name
    return path.name


def gives_probabilities(architecture: Mapping[str, Any]) -> bool:
    """Whether the described network ends in a softmax."""
    return architecture.get("outputs") == PROBABILITIES


def build_described(architecture: dict[str, Any]) -> Classifier:
    """The network that `describe` described, freshly initialized."""
    channels, height, width = architecture["input"]
    model: Classifier
    if "graph" in architecture:
        net = OnnxNetwork(with_zeros(architecture["graph"]), architecture["model"])
        model = Foreign(net, architecture["model"], len(architecture["classes"]))
    else:
        model = networks.build_network(
            architecture["model"],
            channels=channels,
            classes=len(architecture["classes"]),
            size=(height, width),
            code=architecture.get("code"),
            place=architecture.get("place"),
        )
    if gives_probabilities(architecture):
        if not isinstance(model, Foreign):
            raise CompressError(
                f"{architecture['model']}: gives probabilities where a Classifier gives logits; return the values "
                f"before its softmax"
            )
        model.probabilities = True
    named = architecture.get("features")
    if isinstance(model, Foreign):
        model.shape, model.named = (channels, height, width), NamedFeatures.of(named)
    elif named:
        raise CompressError(f"features: {architecture['model']} has features of its own; leave {', '.join(named)} out")
    return model


def write_network(work: artifact.Work, architecture: dict[str, Any], model: torch.nn.Module) -> None:
    """Both files, as payload of the stage in the making."""
    write_architecture(work, architecture)
    write_weights(work.add_payload(WEIGHTS), model.state_dict())


def write_architecture(work: artifact.Work, architecture: dict[str, Any]) -> None:
    described = {key: value for key, value in architecture.items() if key not in TRANSIENT}
    if "graph" in architecture:
        bare = without_values(with_zeros(architecture["graph"]), architecture["model"])
        artifact.write_atomic(work.add_payload(GRAPH), bare)
    artifact.write_atomic(work.add_payload(ARCHITECTURE), json.dumps(described, indent=2) + "\n")


def load_network(architecture: dict[str, Any], folder: Path) -> Classifier:
    """The network that `describe` described with the weights in `folder`, mapped from their file."""
    ours = ":" not in architecture["model"] and "graph" not in architecture
    with torch.device("meta") if ours else contextlib.nullcontext():
        model = build_described(architecture)
    try:
        model.load_state_dict(read_weights(folder), strict=True, assign=True)
    except RuntimeError as fault:
        raise CompressError(
            f"{folder}: its weights are not those of {architecture['model']} as it is built here "
            f"({errors.first_line(fault, 160)}); use the version that it was made with"
        ) from None
    return model


def write_weights(path: Path, weights: Mapping[str, torch.Tensor]) -> None:
    """A safetensors file, one tensor in memory at a time; half-precision weights as float32.

    The library's own writer copies all tensors first, which a network of a gigabyte mapped from its checkpoint need
    not pay for. Format: length of the header (u64), header (JSON), the tensors' bytes.
    """
    header, end = {}, 0
    for name, value in sorted(weights.items()):
        dtype = torch.float32 if value.is_floating_point() else value.dtype
        begin, end = end, end + value.numel() * dtype.itemsize
        header[name] = {"dtype": DTYPES[dtype], "shape": list(value.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in header:
            value = weights[name].detach().cpu().flatten()
            stored = (value.float() if value.is_floating_point() else value).contiguous().numpy()
            file.write(stored.data)


def read_architecture(folder: Path) -> dict[str, Any]:
    """What `describe_network` described, of a stage; with a graph, or the `place` of a user's source as was."""
    architecture = dict(json.loads((folder / ARCHITECTURE).read_text(encoding="utf-8")))
    if "code" in architecture:
        lineage = json.loads((folder / artifact.MANIFEST).read_text(encoding="utf-8"))["lineage"]
        architecture |= {"place": (folder / lineage["code"]).resolve()} if "code" in lineage else {}
    if (folder / GRAPH).is_file():
        architecture["graph"] = (folder / GRAPH).read_bytes()
    return architecture


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    return read_tensors(folder / WEIGHTS)


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """A safetensors file, mapped; read whole where its path is not UTF-8, which torch cannot map."""
    text = os.fsencode(path).decode("utf-8", "replace")
    return dict(load_file(path) if text == str(path) else load(path.read_bytes()))
