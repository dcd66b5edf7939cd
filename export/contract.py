"""What a consumer in another language must know of an exported stage, in one file beside the model: contract.json."""

import json
from typing import Any

import onnx

from compress.config import ExportConfig
from compress.data.dataset import Dataset
from edge.core import artifact
from edge.core.artifact import Work
from edge.core.targets import RUNTIMES
from edge.runtimes.runner import MODEL

CONTRACT = "contract.json"
#: The file that is executed, the first of these that a stage holds.
EXECUTED = ("engine.plan", "program.ep", "program.pt2", MODEL)
COLOURS = {1: "GRAY", 3: "RGB"}


def write_contract(work: Work, dataset: Dataset, config: ExportConfig) -> None:
    """contract.json as payload, from what lies in `work` already and its metrics."""
    content = contract_of(work, dataset, config)
    artifact.write_atomic(work.add_payload(CONTRACT), json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def contract_of(work: Work, dataset: Dataset, config: ExportConfig) -> dict[str, Any]:
    """Names, shapes and meaning of input and output, labels in the order of the logits, and the model file's hash."""
    name = next(name for name in EXECUTED if name in work.payload)
    proto = onnx.load(work.file(MODEL), load_external_data=False)
    constants = {entry.name for entry in proto.graph.initializer}
    entry = next(entry for entry in proto.graph.input if entry.name not in constants)
    (result,) = proto.graph.output
    channels, height, width = dataset.images.shape[1:]
    return {
        "format": 1,
        "model": {"file": name, "sha256": artifact.file_sha256(work.file(name))},
        "target": config.target,
        "runtime": next(runtime for runtime, targets in RUNTIMES.items() if config.target in targets),
        "precision": work.metrics["precision"],
        "input": {
            "name": entry.name,
            "shape": ["batch", channels, height, width],
            "batch": _batch(work, config),
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
            "meaning": "probabilities" if work.metrics.get("probabilities") else "logits",
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


def _batch(work: Work, config: ExportConfig) -> dict[str, "int | None"]:
    """Fewest, best and most images of one call; None: no bound, or none known."""
    fixed = work.metrics.get("fixed_batch")
    if fixed:
        return {"min": fixed, "opt": fixed, "max": fixed}
    if config.target == "onnx":
        return {"min": 1, "opt": None, "max": None}
    return {"min": config.batch.min, "opt": config.batch.opt, "max": config.batch.max}
