"""`compress inspect`."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from compress.cli.main import Verb
from compress.cli.options import FOLDER, json_option
from edge.core.readable import file_size, table


@click.command(
    name="inspect",
    cls=Verb,
    examples=[
        "compress inspect runs/exported",
        "compress inspect model.onnx --json",
        "compress inspect runs/quantized",
    ],
)
@click.argument("artifact", type=FOLDER)
@json_option()
def inspect(artifact: Path, as_json: bool) -> None:
    """Say what an artifact holds: input contract, files, each layer's precision and size, Q/DQ pairs, lineage.

    ARTIFACT is the folder of any stage, an .onnx file, or an engine.plan with its files beside it. Hashes are checked;
    no image is needed. How a layer of an ONNX file executes is read off the graph that ONNX Runtime optimises for this
    processor, that of an engine off what its builder told.
    """
    from export.inspection import inspect_artifact as look

    inspection = look(artifact)
    click.echo(json.dumps(inspection, ensure_ascii=False) if as_json else "\n".join(inspection_lines(inspection)))


#: Labels are listed in full up to here.
FEW = 20


def inspection_lines(inspection: Mapping[str, Any]) -> list[str]:
    """Head, contract, files, layers, quantization, engine, data, lineage: what there is of these."""
    head = [inspection["kind"], inspection["path"], (inspection["identity"] or "")[:12]]
    about = [inspection["target"], inspection["precision"], inspection["model"]]
    return [
        "  ".join(filter(None, [*head, ", ".join(filter(None, about))])),
        *_block("contract", _contract(inspection["contract"])),
        *_block("files", _files(inspection)),
        *_block("engine", _engine(inspection["engine"])),
        *_block("graph", _graph(inspection["graph"])),
        *_block("layers", _layers(inspection["graph"])),
        *_block("quantization", _quantization(inspection["graph"])),
        *_block("data", iter(inspection["data"])),
        *_block("lineage", _lineage(inspection["lineage"])),
    ]


def _block(title: str, rows: "Iterator[str]") -> list[str]:
    listed = [f"  {row}" for row in rows]
    return [title, *listed] if listed else []


def _contract(contract: "Mapping[str, Any] | None") -> Iterator[str]:
    if contract is None:
        return
    taken, given, labels = contract["input"], contract["output"], contract["labels"]
    marks = [taken.get("layout"), taken.get("colour")]
    if taken.get("range"):
        low, high = taken["range"]
        marks += [f"in [{low:g}, {high:g}]", taken.get("from_8_bit"), f"normalisation {taken['normalisation']}"]
    else:
        marks.append("what a pixel's values mean is not said")
    yield f"input   {_tensor(taken)}  {', '.join(filter(None, marks))}"
    if batch := taken.get("batch"):
        yield f"batch   {batch['min'] or 'any'} to {batch['max'] or 'any'}, best {batch['opt'] or 'unknown'}"
    yield f"output  {_tensor(given)}  {given.get('meaning') or ''}".rstrip()
    for kind, entries in contract.get("further", {}).items():
        if entries:
            yield f"further {kind}: {', '.join(map(_tensor, entries))}"
    named = (
        []
        if labels is None
        else [label if label == str(index) else f"{index} {label}" for index, label in enumerate(labels)]
    )
    more = f", … {len(named) - FEW} more" if len(named) > FEW else ""
    yield f"labels  {', '.join(named[:FEW])}{more}" if named else "labels  not said"


def _tensor(entry: Mapping[str, Any]) -> str:
    if "name" not in entry:
        return "none"
    return f"{entry['name']} {entry.get('dtype')} ({', '.join(map(str, entry.get('shape', [])))})"


def _files(inspection: Mapping[str, Any]) -> Iterator[str]:
    rows = [
        [
            entry["name"],
            file_size(entry["bytes"]),
            entry["sha256"][:12],
            "hash right" if entry["verified"] else "no manifest",
        ]
        for entry in inspection["files"]
    ]
    yield from table(["file", "size", "sha256", ""], rows)


def _engine(engine: "Mapping[str, Any] | None") -> Iterator[str]:
    if engine is None:
        return
    about, recipe, told = engine["about"], engine["recipe"], engine["layers"]
    if about is None:
        yield "deferred: built from model.onnx and recipe.json on the device that runs it first"
    else:
        device = (
            about["device"]["name"]
            if about["device"]
            else "compute capability " + ", ".join(about["compute_capabilities"])
        )
        library, system = about["library"], f"{about['system']} {about['machine']}"
        yield f"{library['target']} {library['version']}, for {device}, {system}"
    if recipe is not None:
        low, best, high = recipe["batch"]
        level = recipe["optimization_level"]
        yield f"recipe: {recipe['precision']}, batch {low} to {high}, best {best}, optimization level {level}"
    if told is not None:
        counted = ", ".join(f"{count} {name}" for name, count in told["precisions"].items())
        yield f"layers with weights execute in: {counted or 'none told'}; {len(told['apart'])} layers stand apart"
        if told["not_int8"]:
            yield f"meant for INT8, executed otherwise: {', '.join(told['not_int8'])}"


def _graph(graph: "Mapping[str, Any] | None") -> Iterator[str]:
    if graph is None or "opset" not in graph:
        return
    yield f"opset {graph['opset']}, IR version {graph['ir_version']}, by {graph['producer'] or 'an unnamed tool'}"
    yield "operators  " + ", ".join(f"{count} {name}" for name, count in graph["operators"].items())
    yield "stored     " + ", ".join(f"{file_size(count)} {name}" for name, count in graph["stored_bytes"].items())


def _layers(graph: "Mapping[str, Any] | None") -> Iterator[str]:
    if graph is None or not graph["layers"]:
        return
    rows = [
        [
            row["name"],
            row["op"],
            "×".join(map(str, row["weight"])) if row["weight"] else "",
            row["stored"] or "",
            file_size(row["bytes"]) if row["weight"] else "",
            row.get("execution") or "",
            row.get("executed_by") or "",
        ]
        for row in graph["layers"]
    ]
    titles = ["layer", "operator", "weight", "stored", "size", "executes", "as"]
    kept = [i for i in range(len(titles)) if i < 2 or any(row[i] for row in rows)]
    yield from table([titles[i] for i in kept], [[row[i] for i in kept] for row in rows])


def _quantization(graph: "Mapping[str, Any] | None") -> Iterator[str]:
    pairs = None if graph is None else graph["quantization"]
    if pairs is None:
        return
    yield f"activations  {pairs['pairs']} pairs, {pairs['unsigned']} unsigned, {pairs['signed']} signed"
    if "zero_points" in pairs:
        yield "zero points  " + ", ".join(f"{value} ({count})" for value, count in pairs["zero_points"].items())
        yield "constants    " + (", ".join(f"{count} {name}" for name, count in pairs["weights"].items()) or "none")
    else:
        yield f"ranges       {pairs['ranges']}, tuned for {pairs['runtime']}, {pairs['fused']} sites fused by TensorRT"
    for name, spread in (("scales", pairs["scales"]), ("of weights", pairs["weight_scales"])):
        if spread:
            yield f"{name:<11}  " + ", ".join(f"{which} {value:.3g}" for which, value in spread.items())
    yield f"left float   {', '.join(pairs['left_float']) or 'no layer'}"


def _lineage(found: "Sequence[Mapping[str, Any]]") -> Iterator[str]:
    for row in found:
        name = f"{'  ' * (row['depth'] - 1)}{row['role']}"
        state = "" if row["state"] == "found" else f"{row['state']}: {row.get('why', 'nothing is there')}"
        yield "  ".join(filter(None, [f"{name:<14}", row["path"], (row["identity"] or "")[:12], row["what"], state]))
