"""Time and memory of exporting a network with parity: what a user waits for, and what it takes beyond torch itself.

    python benchmarks/export_cost.py [--model resnet18] [--precision auto] [--repeats 3] [--note "…"]

A student of random weights for images 3 × 32 × 32 is exported for ONNX Runtime in a process of its own, parity on 256
images at two batch sizes included. From its largest resident memory that of the same export of a network of 75 thousand
weights is taken away: libraries, exporter and runtime. The difference is said in sizes of the weights. Medians over
repeats. About two minutes. Appends to benchmarks/results/export_cost.jsonl.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

RESULTS = ROOT / "benchmarks" / "results" / "export_cost.jsonl"
SMALL = "resnet8"


def main(given: argparse.Namespace) -> None:
    from benchmarks.machine import where

    with tempfile.TemporaryDirectory() as scratch:
        folders = {name: made(Path(scratch), name) for name in (SMALL, given.model)}
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in folders}
        for number in range(given.repeats):
            for name, folder in folders.items():
                out = Path(scratch) / f"{name}-{number}"
                runs[name].append(exported(folder, Path(scratch) / "images.npz", out, given.precision))
    found = {name: {key: statistics.median(run[key] for run in each) for key in each[0]} for name, each in runs.items()}
    weights = found[given.model]["weight_bytes"]
    row = {
        "model": given.model,
        "precision": given.precision,
        "seconds": round(found[given.model]["seconds"], 1),
        "cpu_seconds": round(found[given.model]["cpu_seconds"], 1),
        "peak_mb": round(found[given.model]["peak_bytes"] / 1e6),
        "small_peak_mb": round(found[SMALL]["peak_bytes"] / 1e6),
        "weights_mb": round(weights / 1e6, 1),
        "peak_in_weights": round((found[given.model]["peak_bytes"] - found[SMALL]["peak_bytes"]) / weights, 2),
        "repeats": given.repeats,
        "note": given.note,
    }
    print(json.dumps(row, indent=2))
    with open(RESULTS, "a") as file:
        file.write(json.dumps({**row, **where()}) + "\n")


def made(scratch: Path, name: str) -> Path:
    """A student stage of that network, beside the images that it is for."""
    import numpy as np
    import torch

    from compress import data, networks
    from compress.config import StudentConfig, parse
    from compress.folders import plan_of
    from compress.networks import network_files
    from edge.core import artifact

    file = scratch / "images.npz"
    if not file.exists():
        rng = np.random.default_rng(0)
        images, labels = rng.integers(0, 256, (4000, 32, 32, 3), np.uint8), np.arange(4000) % 10
        np.savez(file, images=images, labels=labels)
    config = parse(StudentConfig, {"data": f"npz:{file}", "threat": {"eps": "8/255"}, "model": SMALL}, "benchmark")
    torch.manual_seed(0)
    network = networks.build_network(name, channels=3, classes=10)
    with torch.no_grad():
        network.train()(torch.rand(64, 3, 32, 32))
    architecture = network_files.describe_network(name, (3, 32, 32), data.load_dataset(config.data).classes)
    plan = plan_of("student", config, {})
    return artifact.build(
        scratch / name, plan, lambda work: network_files.write_network(work, architecture, network)
    ).path


def exported(stage: Path, images: Path, out: Path, precision: str) -> dict[str, Any]:
    """What a process of its own says of the export of one stage."""
    told = subprocess.run(
        [sys.executable, __file__, "--child", str(stage), str(images), str(out), precision],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return dict(json.loads(told.stdout.splitlines()[-1]))


def child(stage: str, images: str, out: str, precision: str) -> None:
    began = time.perf_counter()
    import export.stage
    from compress.config import ExportConfig, parse

    asked = {"data": f"npz:{images}", "threat": {"eps": "8/255"}, "precision": precision}
    export.stage.run(parse(ExportConfig, asked, "benchmark"), export.stage.ExportInputs(model=stage), out)
    used = resource.getrusage(resource.RUSAGE_SELF)
    told = {
        "seconds": time.perf_counter() - began,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "peak_bytes": used.ru_maxrss * 1024,
        "weight_bytes": (Path(stage) / "weights.safetensors").stat().st_size,
    }
    print(json.dumps(told))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:])
        sys.exit()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--note", default="")
    main(parser.parse_args())
