"""What a consumer in another language must know of an exported stage, in one file beside the model: contract.json.

Where a stage has none, what the graph or the network itself says.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from compress.networks.graph.output_meaning import LOGITS, UNKNOWN, output_meaning
from edge.core import artifact, targets
from edge.core.artifact import Work
from edge.core.errors import CompressError
from edge.core.targets import Target
from edge.runtimes.runner import CONTRACT, MODEL

if TYPE_CHECKING:
    from compress.config import ExportConfig
    from compress.data.dataset import Dataset

COLOURS = {1: "GRAY", 3: "RGB"}
#: What every emitter says in its metrics: later steps and tables read it.
METRICS = ("bytes", "precision", "executed", "parity")


@dataclass(frozen=True)
class Emission:
    """What an emitter wrote: the manifest's metrics, the file that is executed, and what its graph was emitted for.

    The metrics hold `METRICS`. The graph lies in model.onnx in every stage: contract and `compress inspect` read it.
    """

    metrics: "dict[str, Any]"
    file: str
    runtime: str


def check_emission(target: Target, work: Work, emission: object) -> None:
    """CompressError that names what an installed package's emitter did not write."""
    if not isinstance(emission, Emission):
        raise CompressError(
            f"target {target.name}: {target.emitter} gave {type(emission).__name__}; it must give an "
            f"{Emission.__module__}.{Emission.__name__}"
        )
    lacking = [f"the file {name}" for name in dict.fromkeys((MODEL, emission.file)) if name not in work.payload]
    lacking += [f"metrics[{key!r}]" for key in METRICS if key not in emission.metrics]
    if lacking:
        raise CompressError(
            f"target {target.name}: {target.emitter} left out {', '.join(lacking)}; an emitter writes each "
            f"(add_payload, Emission.metrics)"
        )


def write_contract(work: Work, dataset: "Dataset", config: "ExportConfig", emission: Emission) -> None:
    """contract.json as payload, from what lies in `work` already."""
    content = contract_of(work, dataset, config, emission)
    artifact.write_atomic(work.add_payload(CONTRACT), json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def contract_of(work: Work, dataset: "Dataset", config: "ExportConfig", emission: Emission) -> dict[str, Any]:
    """Names, shapes and meaning of input and output, labels in the order of the logits, and the model file's hash."""
    proto = onnx.load(work.file(MODEL), load_external_data=False)
    entry = graph_inputs(proto)[0]
    (result,) = proto.graph.output
    channels, height, width = dataset.images.shape[1:]
    # fewest, best and most images of one call; None: no bound, or none known
    batch: dict[str, int | None] = {"min": config.batch.min, "opt": config.batch.opt, "max": config.batch.max}
    if fixed := emission.metrics.get("fixed_batch"):
        batch = {"min": fixed, "opt": fixed, "max": fixed}
    elif targets.get(config.target).any_batch:
        batch = {"min": 1, "opt": None, "max": None}
    return {
        "format": 1,
        "model": {"file": emission.file, "sha256": artifact.file_sha256(work.file(emission.file))},
        "target": config.target,
        "runtime": emission.runtime,
        "precision": emission.metrics["precision"],
        "input": {
            "name": entry.name,
            "shape": ["batch", channels, height, width],
            "batch": batch,
            "dtype": "float32",
            "layout": "NCHW",
            "colour": COLOURS.get(channels, "as in the dataset"),
            "range": [0.0, 1.0],
            "from_8_bit": "k / 255",
            "normalisation": "none: inside the graph",
        },
        "output": {
            "name": result.name,
            "shape": ["batch", len(dataset.classes)],
            "dtype": "float32",
            "meaning": emission.metrics.get("output", LOGITS),
        },
        "labels": list(dataset.classes),
        "deepstream": {
            "net-scale-factor": 1 / 255,
            "offsets": ";".join(["0"] * channels),
            "model-color-format": {1: 2, 3: 0}.get(channels),
            "network-type": 1,
            "infer-dims": f"{channels};{height};{width}",
        },
    }


def graph_inputs(proto: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """What a caller gives: inputs that are no constants."""
    constants = {entry.name for entry in proto.graph.initializer}
    return [entry for entry in proto.graph.input if entry.name not in constants]


def contract_of_folder(folder: Path) -> "dict[str, Any] | None":
    """contract.json, as it was written."""
    path = folder / CONTRACT
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def contract_of_graph(proto: onnx.ModelProto, labels: "Sequence[str] | None") -> dict[str, Any]:
    """Names, shapes and types; what stands for a pixel is not in a graph and stays null."""
    inputs = [_tensor(entry) for entry in graph_inputs(proto)]
    outputs = [_tensor(entry) for entry in proto.graph.output]
    return {
        "input": {**(inputs[0] if inputs else {}), "range": None, "layout": None, "normalisation": None},
        "output": {**(outputs[0] if outputs else {}), "meaning": _meaning(proto) if outputs else None},
        "further": {"inputs": inputs[1:], "outputs": outputs[1:]},
        "labels": list(labels) if labels else None,
    }


def _meaning(proto: onnx.ModelProto) -> "str | None":
    meaning = output_meaning(proto)
    return None if meaning.kind == UNKNOWN else meaning.wording


def contract_of_architecture(architecture: Mapping[str, Any]) -> dict[str, Any]:
    """Of a network in torch: the contract that every one of this package keeps."""
    return {
        "input": {
            "name": "x",
            "shape": ["batch", *architecture["input"]],
            "dtype": "float32",
            "layout": "NCHW",
            "range": [0.0, 1.0],
            "normalisation": "none: inside the network",
        },
        "output": {"name": "logits", "shape": ["batch", len(architecture["classes"])], "dtype": "float32"},
        "labels": list(architecture["classes"]),
    }


def _tensor(entry: onnx.ValueInfoProto) -> dict[str, Any]:
    kind = entry.type.tensor_type
    shape = [size.dim_value or size.dim_param or "?" for size in kind.shape.dim]
    name = onnx.TensorProto.DataType.Name(kind.elem_type).lower()
    return {"name": entry.name, "shape": shape, "dtype": {"float": "float32", "double": "float64"}.get(name, name)}
