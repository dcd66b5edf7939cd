"""What a batch can know of a feature covariance: its inflation, rank and condition, by batch size.

    python benchmarks/batch_covariance.py STAGE… --data imagefolder:images.tar.xz [--images 4096] [--sizes 32 … 1024]

Pooled penultimate features of training images, of each network as they are and, of networks wider than the narrowest,
along as many principal directions (what VGap compares). For each batch size B, means over disjoint batches, of the
condition the median:

    inflation   ‖C_B‖² / ‖C‖², where ‖C‖² + tr(C)² / (B − 1) over ‖C‖² is expected of normal features
    floor       ‖C_B − C_B'‖² / ‖C_B'‖² of two batches of one network: how much of a covariance is its batch's own
    rank        eigenvalues above D ε λ_max (float64); condition: the largest over the smallest of these
    effective   rank as exp of the entropy of the spectrum (Roy & Vetterli 2007)

Appends a row a network to benchmarks/results/batch_covariance.jsonl.
"""

import argparse
import json
import sys
from pathlib import Path
from statistics import mean, median

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
from torch import Tensor

from benchmarks.machine import where
from compress import data
from compress.data.split import Split
from compress.folders import load
from compress.methods.features import covariance, misfit, principal_directions
from compress.training import device

RESULTS = Path(__file__).parent / "results" / "batch_covariance.jsonl"


def main(given: argparse.Namespace) -> None:
    split = Split.of(data.load_dataset(given.data), "train", device())
    order = torch.randperm(len(split.labels), generator=torch.Generator().manual_seed(0))[: given.images]
    images = Split(split.images[order], split.labels[order])
    seen = {name: features(name, images) for name in given.stages}
    narrowest = min(f.shape[1] for f in seen.values())
    for name, f in seen.items():
        kinds = {"as they are": f}
        if f.shape[1] > narrowest:
            kinds[f"{narrowest} principal directions"] = f @ principal_directions(f, narrowest).T
        for kind, rows in kinds.items():
            row = {
                "network": Path(name).name,
                "features": kind,
                "width": rows.shape[1],
                "images": len(rows),
                "participation": round(float(covariance(rows).trace() ** 2 / covariance(rows).square().sum()), 2),
                "sizes": {size: of_batches(rows, size) for size in given.sizes},
            }
            print(json.dumps(row))
            with open(RESULTS, "a") as file:
                file.write(json.dumps({**row, "note": given.note, **where()}) + "\n")


def features(stage: str, images: Split) -> Tensor:
    """Pooled features (N,D) in float64."""
    model = load(stage).to(device())
    with torch.no_grad():
        return torch.cat([model.forward_features(x).pooled.double() for x, _ in images.batches(256)])


def of_batches(f: Tensor, size: int) -> dict[str, float]:
    """The means over disjoint batches of that size."""
    whole = covariance(f).square().sum()
    found = [covariance(part) for part in f.split(size) if len(part) == size]
    spectra = [torch.linalg.eigvalsh(c).clamp(min=0) for c in found]
    kept = [s[s > len(s) * torch.finfo(s.dtype).eps * s.max()] for s in spectra]
    shares = [s / s.sum() for s in kept]
    return {
        "inflation": round(float(torch.stack([c.square().sum() for c in found]).mean() / whole), 4),
        "expected": round(float(1 + covariance(f).trace() ** 2 / (size - 1) / whole), 4),
        "floor": round(mean(float(misfit(a, b)) for a, b in zip(found[::2], found[1::2], strict=False)), 4),
        "rank": round(mean(len(s) for s in kept), 1),
        "effective": round(mean(float((-(p * p.log()).sum()).exp()) for p in shares), 2),
        "condition": float(f"{median(float(s.max() / s.min()) for s in kept):.3g}"),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stages", nargs="+")
    parser.add_argument("--data", required=True)
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64, 128, 256, 512, 1024])
    parser.add_argument("--note", default="")
    main(parser.parse_args())
