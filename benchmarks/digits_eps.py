"""At which radius does a normally trained network fail on digits? Chooses the quickstart's ε.

    python benchmarks/digits_eps.py

Trains ResNet-8 by plain cross-entropy with three seeds and attacks its validation images (PGD-20 on cross-entropy,
step 2.5 ε / 20, one start). Appends one row a seed to benchmarks/results/digits_eps.jsonl. About 20 s on 2 cores.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.machine import where
from compress import data
from compress.attacks.pgd import accuracy, robust_accuracy
from compress.config import StudentConfig, parse
from compress.data.split import Split
from compress.folders import load
from compress.stages import distill
from compress.training import device

RESULTS = Path(__file__).parent / "results" / "digits_eps.jsonl"
RADII = (8, 16, 24, 32, 40, 48)


def main() -> None:
    for seed in range(3):
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "normal"
            config = {"data": "digits", "model": "resnet8", "method": "normal", "epochs": 15, "seed": seed}
            distill.run(parse(StudentConfig, config, "benchmark"), distill.StudentInputs(), out)
            model = load(out).to(device())
        split = Split.of(data.load_dataset("digits"), "val", device())
        robust = {
            f"{radius}/255": round(robust_accuracy(model, split, 128, eps=radius / 255, steps=20, seed=seed), 4)
            for radius in RADII
        }
        row = {"seed": seed, "n": len(split.labels), "clean": round(accuracy(model, split, 128), 4), "robust": robust}
        print(json.dumps(row))
        with open(RESULTS, "a") as file:
            file.write(json.dumps({**row, **where()}) + "\n")


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    main()
