"""What an engine executes: its layers, each with the arithmetic it runs in and the graph's nodes that went into it.

Three descriptions of one thing are read: the engine inspector's JSON of TensorRT 10 (tensors with `Format/Datatype`),
that of 11 (`Datatype` and `Format` apart), and the listing that the builder writes to its log, the only one that a
machine without a GPU can have.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

LAYERS = "layers.json"
Row = dict[str, Any]

#: How a type is written, in the order in which they are looked for: `BFloat16` holds `Float`, `Int8` is in no other.
TYPES = (
    ("bf16", r"bf(loat)?-?16"),
    ("fp8", r"fp8|float8"),
    ("fp16", r"fp16|half|float16"),
    ("int8", r"int8"),
    ("int32", r"int32"),
    ("int64", r"int64"),
    ("bool", r"bool"),
    ("float32", r"fp32|float32|float"),
)
NODE = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
WEIGHTED_TYPE = re.compile(r"conv|correlation|gemm|matri", re.IGNORECASE)
LISTED = re.compile(
    r"^Name: (?P<Name>.*?), LayerType: (?P<LayerType>[^,]*), Inputs: \[(?P<Inputs>.*?)\], "
    r"Constants: \[(?P<Constants>.*?)\], Outputs: \[(?P<Outputs>.*?)\], "
    r"TacticName: (?P<TacticName>.*?), StreamId: \d+, Metadata: (?P<Metadata>.*)$"
)
LISTED_TENSOR = re.compile(r"\{ Name: (.*?), Dimensions: \[([^\]]*)\].*?Datatype: ([^,]*), Format: (.*?) \}")


def of_inspector(text: str) -> list[Row]:
    """The rows of an engine inspector's JSON, of either major version; [] of what is none."""
    try:
        inspected = json.loads(text)
    except ValueError:
        return []
    layers = inspected.get("Layers", []) if isinstance(inspected, Mapping) else inspected
    return [_row(layer) for layer in layers if isinstance(layer, Mapping)]


def of_listing(text: str) -> list[Row]:
    """The rows of the builder's listing; lines that hold no layer are passed over."""
    rows = []
    for line in text.splitlines():
        listed = LISTED.match(line)
        if listed is not None:
            layer: Row = listed.groupdict()
            layer |= {kind: list(_listed(layer[kind])) for kind in ("Inputs", "Constants", "Outputs")}
            rows.append(_row(layer))
    return rows


def layer_report(rows: Sequence[Row], *, weighted: Sequence[str], int8: Sequence[str]) -> dict[str, Any]:
    """The rows with what they come to, for the nodes that a recipe names.

    `weighted`: precision by node; `not_int8`: nodes meant for 8 bits that execute otherwise; `apart`: layers that
    multiply by no weights and were therefore fused into none; `unseen`: weighted nodes that no layer names.
    """
    heavy = [row for row in rows if row["weighted"]]
    executed = {node: next((row["precision"] for row in heavy if node in row["nodes"]), None) for node in weighted}
    return {
        "precisions": dict(sorted(Counter(row["precision"] for row in heavy).items())),
        "weighted": {node: precision for node, precision in executed.items() if precision is not None},
        "not_int8": [node for node in int8 if executed.get(node) not in ("int8", None)],
        "unseen": [node for node, precision in executed.items() if precision is None],
        "apart": [row["name"] for row in rows if not row["weighted"] and row["outputs"]],
        "layers": list(rows),
    }


def layer_lines(report: Mapping[str, Any], int8: Sequence[str]) -> list[str]:
    """What a person should know of a report, at most three lines."""
    counted = ", ".join(f"{count} {name}" for name, count in report["precisions"].items())
    rows = [f"layers with weights: {counted or 'none'}; {len(report['apart'])} layers stand apart, unfused"]
    if report["not_int8"]:
        which = [f"{node} ({report['weighted'][node]})" for node in report["not_int8"]]
        rows.append(f"{len(which)} of {len(int8)} nodes meant for INT8 execute otherwise: {_few(which)}")
    if report["unseen"]:
        rows.append(f"{len(report['unseen'])} nodes with weights are named by no layer: {_few(report['unseen'])}")
    return rows


def kind(text: str) -> str:
    """A type as the library writes it (`Row major linear FP16 format`, `Half`), by our name; `other` else."""
    return next((name for name, pattern in TYPES if re.search(pattern, text, re.IGNORECASE)), "other")


def _row(layer: Mapping[str, Any]) -> Row:
    inputs, outputs = (_tensors(layer.get(side, [])) for side in ("Inputs", "Outputs"))
    weights = _weights(layer)
    name = str(layer.get("Name", ""))
    # the graph's nodes: from the metadata, or else from the layer's own name, `conv1 + relu1`
    nodes = list(dict.fromkeys(NODE.findall(str(layer.get("Metadata", "")))))
    return {
        "name": name,
        "type": str(layer.get("LayerType", "")),
        "nodes": nodes or [part for part in name.split(" + ") if part],
        "weighted": weights is not None,
        "precision": _precision(inputs, outputs, weights),
        "inputs": inputs,
        "outputs": outputs,
        "tactic": str(layer.get("TacticName", "")),
    }


def _tensors(listed: Any) -> list[dict[str, str]]:
    """Name and type of each; 11 has the type apart, 10 has it inside the format."""
    tensors = listed if isinstance(listed, list) else []
    types = [kind(str(tensor.get("Datatype", tensor.get("Format/Datatype", "")))) for tensor in tensors]
    return [{"name": str(tensor.get("Name", "")), "type": type_} for tensor, type_ in zip(tensors, types, strict=True)]


def _weights(layer: Mapping[str, Any]) -> "str | None":
    """The type of the weights that a layer multiplies by; None where it has none."""
    weights = layer.get("Weights")
    if isinstance(weights, Mapping):
        return kind(str(weights.get("Type", "")))
    for constant in layer.get("Constants", []):
        if sum(int(size) > 1 for size in constant.get("Dimensions", [])) > 1:
            return kind(str(constant.get("Datatype", constant.get("Format/Datatype", ""))))
    return "" if WEIGHTED_TYPE.search(str(layer.get("LayerType", ""))) else None


def _precision(inputs: list[dict[str, str]], outputs: list[dict[str, str]], weights: "str | None") -> str:
    """Of a layer with weights what it multiplies in; of another one what goes in and, where it differs, comes out.

    A layer that only weights come into multiplies nothing: it prepares them for another.
    """
    first = inputs[0]["type"] if inputs else ""
    last = outputs[0]["type"] if outputs else ""
    if weights and first:
        return first if weights == first else f"{first}×{weights}"
    if weights:
        return f"{weights}→{last}"
    if weights == "":
        return first or "unknown"
    return first if not last or first == last else f"{first}→{last}" if first else last


def _listed(text: str) -> Iterator[dict[str, Any]]:
    for name, sizes, datatype, layout in LISTED_TENSOR.findall(text):
        dimensions = [int(size) for size in sizes.split(",") if size.strip().lstrip("-").isdigit()]
        yield {"Name": name, "Dimensions": dimensions, "Datatype": datatype, "Format": layout}


def _few(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
