"""The figures of a finished run of configs/cifar10-quick.yaml, as one row.

    compress run configs/cifar10-quick.yaml --data imagefolder:images.tar.xz --teacher teacher.pt --out RUN
    python benchmarks/cifar10_quick.py RUN "which images and teacher these were"

Appends to benchmarks/results/cifar10_quick.jsonl: what each stage's manifest and statement say, and how long it took.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.machine import where
from edge.core import artifact

RESULTS = Path(__file__).parent / "results" / "cifar10_quick.jsonl"
STAGES = ("teacher", "student", "quantized", "verified/onnx-cpu", "verified/onnx-float-cpu")


def figures(stage: artifact.Stage) -> dict[str, Any]:
    """Clean and robust accuracy with n and how they were measured; of a verified stage latency and size as well."""
    seconds = stage.manifest["made"]["seconds"]
    if stage.kind != "verified":
        return {**stage.metrics["test"], "parameters": stage.metrics["parameters"], "seconds": seconds}
    stated = json.loads(stage.file("statement.json").read_text())["predicate"]
    kept = {key: stated["figures"][key] for key in ("clean", "robust", "upper_bound")}
    return {
        **kept,
        "n": stated["data"]["n"],
        "attacks": [attack["name"] for attack in stated["attacks"]],
        "bytes": stated["artifact"]["bytes"],
        "p50_ms": stated["latency"]["p50_ms"],
        "seconds": seconds,
    }


def main(run: Path, note: str) -> None:
    stages = {name: artifact.read(run / name) for name in STAGES}
    student = stages["student"]
    row = {
        "data": note,
        "split": student.data["split"],
        "eps": student.config["threat"]["eps"],
        "student": {key: student.config[key] for key in ("model", "method", "epochs", "seed")},
        **{name: figures(stage) for name, stage in stages.items()},
    }
    print(json.dumps(row, indent=2))
    with open(RESULTS, "a") as file:
        file.write(json.dumps({**row, **where()}) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of the finished run")
    parser.add_argument("note", help="which images and teacher these were")
    main(**vars(parser.parse_args()))
