"""What a consumer must feed and gets back: the sidecar where a stage has one, else what the graph itself says."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx

CONTRACT = "contract.json"


def of_folder(folder: Path) -> "dict[str, Any] | None":
    """contract.json, as it was written."""
    path = folder / CONTRACT
    return dict(json.loads(path.read_text())) if path.is_file() else None


def of_graph(proto: onnx.ModelProto, labels: "Sequence[str] | None") -> dict[str, Any]:
    """Names, shapes and types; what stands for a pixel is not in a graph and stays null."""
    constants = {entry.name for entry in proto.graph.initializer}
    inputs = [_tensor(entry) for entry in proto.graph.input if entry.name not in constants]
    outputs = [_tensor(entry) for entry in proto.graph.output]
    return {
        "input": {**(inputs[0] if inputs else {}), "range": None, "layout": None, "normalisation": None},
        "output": {**(outputs[0] if outputs else {}), "meaning": None},
        "further": {"inputs": inputs[1:], "outputs": outputs[1:]},
        "labels": list(labels) if labels else None,
    }


def of_architecture(architecture: Mapping[str, Any]) -> dict[str, Any]:
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
