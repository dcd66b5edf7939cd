"""Which networks of timm go through the whole tool? The smallest of every family, on random weights and images.

    make timm           (or, where timm can be imported: python benchmarks/timm_families.py [FAMILY…])

A family is a module of timm; its smallest network is the one with fewest parameters, at the smallest square images
that it takes. Each is, in a process of its own: built; asked for its features; written as a stage; exported in floating
point and held against torch; its graph rebuilt in torch (the twin); calibrated to INT8; exported; held against its INT8
twin. What fails is named with its cause, and what follows from it is not tried. A row a family is appended to
benchmarks/results/timm_families.jsonl; families that have one of this version of timm are skipped, unless named.
--missing tries of those rows what did not pass, which is what a change of this tool asks for.
"""

import argparse
import contextlib
import functools
import json
import multiprocessing
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Collection, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import torch
from torch import nn

from benchmarks.machine import where
from benchmarks.zoo import randomised
from compress import networks
from compress.config import ExportConfig, QuantizeConfig, parse
from compress.data import load_dataset
from compress.networks import foreign, network_files
from compress.networks.base import Classifier, count_parameters
from compress.networks.graph import onnx_twin
from compress.stages import quantize
from edge import open_runner
from edge.core import artifact
from edge.core.errors import CompressError, first_line
from export import stage as export_stage

RESULTS = Path(__file__).parent / "results" / "timm_families.jsonl"
COLUMNS = ("built", "features", "exported", "twin", "quantized", "exported INT8", "parity INT8")
SIZES = (32, 64, 96, 128, 160, 192, 224, 240, 256, 288, 384)
CLASSES, IMAGES, SECONDS = 10, 60, 600
THREAT = {"threat": {"eps": "8/255"}}
#: A process begins with what this one has imported.
PROCESSES = multiprocessing.get_context("fork")
#: Of the largest logit: what summation order changes, and what a rounding more or less does in INT8.
FLOAT, INTEGER = 1e-3, 0.1
#: Longest text of a cause in a row.
CAUSE = 200


def main(families: list[str], missing: bool) -> None:
    """Rows appended family by family, then how many passed in each column."""
    timm = foreign._package("timm", "pip install timm")
    rows = {row["family"]: row for row in read_rows() if row["versions"]["timm"] == timm.__version__}
    known = [name for name in timm.list_modules() if timm.list_models(module=name)]
    torch.onnx.export(nn.Linear(2, 2), (torch.zeros(1, 2),), dynamo=True, verbose=False)  # imports for all processes
    if missing:
        families = families or [name for name in rows if len(rows[name]["passed"]) < len(COLUMNS)]
    chosen = families or [name for name in known if name not in rows]
    for number, family in enumerate(chosen, 1):
        model = rows[family]["model"] if family in rows else smallest(timm, family)
        before = rows[family] if missing and family in rows else {}
        row = {**before, "family": family, "model": model, **tried(model, before.get("passed", [])), **where()}
        row["versions"] = {**row["versions"], "timm": timm.__version__}
        rows[family] = row
        with open(RESULTS, "a") as file:
            file.write(json.dumps(row) + "\n")
        print(f"{number}/{len(chosen)} {family}: {model} {row.get('size', '')} {faults(row) or 'passes'}", flush=True)
    for column in COLUMNS:
        print(f"{column}: {sum(column in row['passed'] for row in rows.values())} of {len(rows)}")


def read_rows() -> Iterator[dict[str, Any]]:
    """All rows; of a family's the last one counts."""
    if RESULTS.is_file():
        yield from map(json.loads, RESULTS.read_text().splitlines())


def faults(row: dict[str, Any]) -> str:
    return "; ".join(f"{column}: {cause}" for column, cause in row["causes"].items())


def smallest(timm: Any, family: str) -> str:
    """The network of fewest parameters in a family, its tests' own ones aside."""
    sizes: dict[str, int] = {}
    for name in timm.list_models(module=family):
        if name.startswith("test_"):
            continue
        try:
            with torch.device("meta"):
                sizes[name] = count_parameters(timm.create_model(name, num_classes=CLASSES))
        except Exception:  # what cannot be made without values is no candidate where another can
            continue
    names = sizes or {timm.list_models(module=family)[0]: 0}
    return min(names, key=lambda name: (names[name], name))


def tried(model: str, before: Collection[str] = ()) -> dict[str, Any]:
    """What the process of one network reported: `passed` columns, those `before` among them, `causes`, and figures."""
    row: dict[str, Any] = {"passed": [*before], "causes": {}}
    ours, theirs = PROCESSES.Pipe(duplex=False)
    child = PROCESSES.Process(target=one_network, args=(model, before, theirs))
    child.start()
    theirs.close()
    ends = time.monotonic() + SECONDS
    with contextlib.suppress(EOFError):  # the end of the process
        while ours.poll(max(0.0, ends - time.monotonic())):
            report = ours.recv()
            row["passed"] += [column for column in report.pop("passed", []) if column not in row["passed"]]
            row["causes"] |= report.pop("causes", {})
            row |= report
    late = child.is_alive() and time.monotonic() >= ends
    if late:
        child.kill()
    child.join()
    stopped = next((column for column in COLUMNS if column not in [*row["passed"], *row["causes"]]), None)
    if child.exitcode and stopped is not None:  # with every column reported it ended after its work
        row["causes"][stopped] = f"took more than {SECONDS} s" if late else f"its process ended with {child.exitcode}"
    return row


# ------------------------------------------------------------------------------ the process of one network


def one_network(model: str, before: Collection[str], reports: Connection) -> None:
    """Every column for one network that did not pass `before`, each reported as soon as it is known."""
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    name, attempt = f"timm:{model}", functools.partial(attempted, reports)
    with tempfile.TemporaryDirectory() as scratch:
        root, made = Path(scratch), dict[str, Any]()

        def build() -> dict[str, Any]:
            network, size = built(name)
            made.update(network=network, size=size)
            return {"parameters": count_parameters(network), "size": size}

        if not attempt("built", build):
            return
        network, size = made["network"], made["size"]
        if "features" not in before:
            attempt("features", lambda: features_of(network, size))
        data = f"npz:{write_images(root, size)}"
        write_stage(root / "float", name, network, size, data)
        if "twin" not in before and attempt("exported", lambda: exported(root, "float", data, FLOAT)):
            attempt("twin", lambda: rebuilt(root / "exported-float", size))
        few = {"mode": "ptq", "calibration_images": 4, "batch_size": 4, "validate_steps": 1, "test_steps": 1}
        brief = parse(QuantizeConfig, {"data": data, **THREAT, **few}, "quantize")
        inputs = quantize.QuantizeInputs(root / "float")
        if not attempt("quantized", lambda: quantize.run(brief, inputs, root / "int8") and None):
            return
        if attempt("exported INT8", lambda: exported(root, "int8", data, None)):
            error = artifact.read(root / "exported-int8").metrics["parity"]
            attempt("parity INT8", lambda: held(error, INTEGER))


def attempted(reports: Connection, column: str, work: Callable[[], "dict[str, Any] | None"]) -> bool:
    """Whether it worked; either is reported, with the figures that it returned."""
    began = time.process_time()
    try:
        figures = work() or {}
    except Exception as fault:  # whatever it is: it is what the table shows
        kind = "" if isinstance(fault, CompressError) else f"{type(fault).__name__}: "
        reports.send({"causes": {column: f"{kind}{first_line(fault, CAUSE)}"}})
        return False
    reports.send({"passed": [column], **figures, f"{column} s": round(time.process_time() - began, 1)})
    return True


def built(name: str) -> tuple[Classifier, int]:
    """The network, for the smallest images that it takes."""
    faults: list[Exception] = []
    for size in SIZES:
        network = randomised_for(name, size, faults)
        if network is not None:
            return network, size
    raise faults[-1]


def randomised_for(name: str, size: int, faults: list[Exception]) -> Classifier | None:
    """With figures that matter in its layers of normalization; None where it does not take images of that size."""
    try:
        torch.manual_seed(0)
        network = networks.build_network(name, channels=3, classes=CLASSES, size=(size, size))
        randomised(network)
        for value in network.parameters():  # a scale that starts at nearly nothing would hide its layer
            if value.ndim == 1 and 0 < float(value.detach().abs().max()) < 1e-3:
                nn.init.uniform_(value, 0.1, 0.5)
        with torch.no_grad():
            logits = network(torch.rand(2, 3, size, size))
        if not bool(torch.isfinite(logits).all()):
            raise CompressError("its logits are not finite")
    except Exception as fault:  # of too small images every network has another
        faults.append(fault)
        return None
    return network


def features_of(network: Classifier, size: int) -> dict[str, Any]:
    with torch.no_grad():
        features = network.forward_features(torch.rand(2, 3, size, size))
    if not features.pooled.numel():
        raise CompressError("no pooled features")
    return {"pooled": features.pooled.shape[1], "stages": len(features.stages)}


def write_images(root: Path, size: int) -> Path:
    """Random images of every class, smooth enough to differ in their means."""
    draw = np.random.default_rng(0)
    coarse = draw.integers(0, 256, (IMAGES, 8, 8, 3), np.uint8)
    images = coarse.repeat(size // 8, 1).repeat(size // 8, 2)
    np.savez(root / "images.npz", images=images, labels=np.arange(IMAGES) % CLASSES)
    return root / "images.npz"


def write_stage(out: Path, name: str, network: Classifier, size: int, data: str) -> None:
    """The network as the stage of an imported teacher."""
    classes = [str(number) for number in range(CLASSES)]
    plan = artifact.Plan("teacher", {"source": name, "data": "npz"}, 0, load_dataset(data).as_plan(), {})
    described = network_files.describe_network(name, (3, size, size), classes)
    artifact.build(out, plan, lambda work: network_files.write_network(work, described, network))


def exported(root: Path, stage: str, data: str, tolerance: "float | None") -> "dict[str, Any]":
    config = parse(ExportConfig, {"data": data, **THREAT, "parity_images": 8}, "export")
    made = export_stage.run(config, export_stage.ExportInputs(root / stage), root / f"exported-{stage}")
    return held(made.metrics["parity"], tolerance) if tolerance else {}


def held(error: dict[str, Any], tolerance: float) -> dict[str, Any]:
    """The largest difference of logits as a share of the largest logit, where it is within the tolerance."""
    share = error["max_abs"] / max(error["scale"], 1e-9)
    if share > tolerance:
        raise CompressError(f"logits differ by {share:.2g} of the largest")
    return {"INT8 error" if tolerance == INTEGER else "error": float(f"{share:.2g}")}


def rebuilt(folder: Path, size: int) -> dict[str, Any]:
    """The float file's graph in torch, against ONNX Runtime."""
    stage = artifact.read(folder)
    images = torch.rand(4, 3, size, size, generator=torch.Generator().manual_seed(1))
    twin = onnx_twin.build_twin(stage.file("model.onnx").read_bytes(), where="twin")
    with open_runner(folder) as runner, torch.no_grad():
        want, got = runner.infer(images.numpy()), twin.output(images).numpy()
    share = float(np.abs(want - got).max() / np.abs(want).max())
    if not share <= FLOAT:
        raise CompressError(f"logits differ by {share:.2g} of the largest")
    return {"twin error": float(f"{share:.2g}")}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", help="modules of timm; none: all that have no row")
    warnings.simplefilter("ignore")
    parser.add_argument("--missing", action="store_true", help="try again what did not pass")
    arguments = parser.parse_args()
    main(arguments.families, arguments.missing)
