"""One row of what `compress export --all` found: every file this machine makes of a network, side by side.

    compress export runs/cifar10-quick/quantized --all --out runs/candidates
    python benchmarks/candidates.py runs/candidates [--note "…"]

Appends to benchmarks/results/candidates.jsonl. Two minutes for a ResNet-20.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.machine import where

RESULTS = Path(__file__).parent / "results" / "candidates.jsonl"
KEPT = ("name", "state", "why", "bytes")


def main(folder: Path, note: str) -> None:
    found = json.loads((folder / "candidates.json").read_text())
    rows = []
    for each in found["rows"]:
        parity, clean, latency = (each[key] or {} for key in ("parity", "clean", "latency"))
        rows.append(
            {
                **{key: each[key] for key in KEPT},
                "max_abs": parity.get("max_abs"),
                "scale": parity.get("scale"),
                "same_class": parity.get("argmax_agreement"),
                "clean": [clean["count"], clean["n"]] if clean else None,
                "p50_ms": latency.get("p50_ms"),
            }
        )
    with open(RESULTS, "a") as file:
        file.write(json.dumps({"rows": rows, "note": note, **where()}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--note", default="")
    given = parser.parse_args()
    main(given.folder, given.note)
