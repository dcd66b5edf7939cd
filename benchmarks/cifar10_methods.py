"""Methods beside each other on CIFAR-10: students of one teacher, after equal epochs and after equal wall-clock.

    python benchmarks/cifar10_methods.py WORK --data imagefolder:images.tar.xz --teacher teacher.pt
        [--only epochs] [--seeds 0 1] [--note "which images and teacher these were"]
    python benchmarks/cifar10_methods.py --table

Trains ResNet-20 students on the first 6,000 training images (a tenth of them for validation), two-step attacks, each by
another method or with one option of VGap changed, and attacks 1,000 test images by PGD-20. Which epoch counts is the
validation split's choice. Every cell is a stage under WORK: kill it and repeat the command, and it goes on. A finished
cell appends its row to benchmarks/results/cifar10_methods.jsonl; `--table` writes docs/results.md from the rows.
Equal wall-clock is what RSLAD's epochs took with seed 0.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import torch

from benchmarks import cifar10_table
from benchmarks.machine import where
from compress import data
from compress.config import ImportConfig, StudentConfig, parse
from compress.data.dataset import Dataset
from compress.numerics.seeds import generator
from compress.stages import distill, teacher_import
from edge.core import artifact
from edge.core.errors import CompressError

RESULTS = Path(__file__).parent / "results" / "cifar10_methods.jsonl"
TRAIN, TEST, EPOCHS, REFERENCE_SEED = 6000, 1000, 4, 0
STUDENT = {
    "model": "resnet20",
    "epochs": EPOCHS,
    "attack": {"steps": 2},
    "validate_steps": 5,
    "test_steps": 20,
    "augment": "crop-flip",
    "lr": 0.1,
    "precision": "bfloat16",
    "diagnose": 20,
}


@dataclass(frozen=True)
class Cell:
    """One student: its group, what the table calls it, how it is trained."""

    group: str
    name: str
    method: "str | list[str]"
    options: dict[str, Any] = field(default_factory=dict)


METHODS = {
    "PGD-AT": ("pgd-at", {}),
    "RSLAD": ("rslad", {}),
    "VGap on RSLAD": ("vgap", {}),
    "VGap on PGD-AT": ("vgap", {"host": "pgd-at"}),
    "GACD on RSLAD": ("gacd", {}),
    "AdaAD": ("adaad", {}),
    "VGap on AdaAD": ("vgap", {"host": "adaad"}),
}
#: What differs from "VGap on RSLAD", one option at a time.
OPTIONS: dict[str, dict[str, Any]] = {
    "no covariance": {"lambda_cov": 0.0},
    "no Gram": {"lambda_gram": 0.0},
    "gap penalty": {"lambda_gap": 0.1},
    "weights × 10": {"lambda_cov": 1.0, "lambda_gram": 1.0},
    "learned P": {"projection": "learned"},
    "every stage": {"features": "stages"},
    "within and between classes": {"scatter": "both"},
    "running statistics": {"statistics": "ema"},
    "Gram between classes": {"gram": "classes"},
    "Gram of features": {"gram_of": "features"},
    "warm-up": {"warmup": 0.5},
}


def cells(seeds: list[int]) -> Iterator[tuple[Cell, int]]:
    """All of them, those that say most for their time first."""
    slow = [name for name in METHODS if "AdaAD" in name]
    for seed in seeds:
        for name in METHODS:
            if name not in slow:
                yield Cell("epochs", name, *METHODS[name]), seed
    for name, options in OPTIONS.items():
        yield Cell("options", name, "vgap", options), seeds[0]
    for seed in seeds:
        for name in METHODS:
            if name != "RSLAD":  # its epochs are the measure
                yield Cell("time", name, *METHODS[name]), seed
    for seed in seeds:
        for name in slow:
            yield Cell("epochs", name, *METHODS[name]), seed


def main(given: argparse.Namespace) -> None:
    root = Path(given.work)
    root.mkdir(parents=True, exist_ok=True)
    archive = subset(given.data, root / "subset.npz")
    teacher = root / "teacher"
    imported = {"source": given.teacher, "data": archive, "threat": {"eps": "8/255"}, "images": 128, "steps": 20}
    teacher_import.run(parse(ImportConfig, imported, "benchmark"), teacher_import.ImportInputs(), teacher)
    for cell, seed in cells(given.seeds):
        if given.only in (None, cell.group) and not done(cell, seed):
            train(cell, seed, archive, teacher, root, given.note)


def train(cell: Cell, seed: int, archive: str, teacher: Path, root: Path, note: str) -> None:
    """The cell's student, and its row."""
    changes: dict[str, Any] = {"method": cell.method, "options": cell.options, "seed": seed}
    if cell.group == "time":
        reference = next((row for row in rows() if key(row) == ("epochs", "RSLAD", REFERENCE_SEED)), None)
        if reference is None:
            print(f"time, {cell.name}, seed {seed}: waits for RSLAD's epochs")
            return
        changes |= {"budget": f"{reference['seconds']:.0f}s", "epochs": 1000}
    config = parse(StudentConfig, {"data": archive, "threat": {"eps": "8/255"}, **STUDENT, **changes}, "benchmark")
    folder = root / cell.group / f"{cell.name.replace(' ', '-').lower()}-{seed}"
    try:
        stage = distill.run(config, distill.StudentInputs(teacher=teacher), folder)
    except CompressError as fault:  # a budget that no epoch fits into, a loss that diverges
        write(cell, seed, {"failed": str(fault)}, note)
        return
    found = stage.metrics
    write(
        cell,
        seed,
        {
            "method": cell.method,
            "options": cell.options,
            "epochs": found["epochs"],
            "best_epoch": found["best_epoch"],
            "seconds": found["seconds"],
            "n": found["test"]["n"],
            "attack": "PGD-20, eps 8/255",
            **{kind: {name: found[kind][name] for name in ("clean", "robust")} for kind in ("test", "test_last")},
            "validation": found["validation"],
            "precision": found["precision"],
            "threads": torch.get_num_threads(),
            "epochs_seen": diagnosed(stage),
        },
        note,
    )


def diagnosed(stage: artifact.Stage) -> list[dict[str, float]]:
    """By epoch each term's share of the gradient, and rank and condition of the batch covariance."""
    lines = [json.loads(line) for line in stage.file("metrics.jsonl").read_text().splitlines()]
    return [
        {name: round(value, 4) for name, value in line.items() if name.startswith(("gradient_share", "covariance"))}
        for line in lines
    ]


def subset(source: str, file: Path) -> str:
    """The first images of each class, training and test, as a dataset of its own: `npz:FILE`."""
    if not file.exists():
        whole = data.load_dataset(source)
        arrays = {
            "x_train": first(whole, np.concatenate([whole.splits["train"], whole.splits["val"]]), TRAIN),
            "x_test": first(whole, whole.splits["test"], TEST),
        }
        labelled = {f"y_{name[2:]}": whole.labels[chosen] for name, chosen in arrays.items()}
        images = {name: whole.images[chosen] for name, chosen in arrays.items()}
        np.savez(file, **images, **labelled, classes=np.array(whole.classes))
    return f"npz:{file}"


def first(whole: Dataset, indices: np.ndarray, count: int) -> np.ndarray:
    """`count` of these images, equally many of each class, in an order that depends on nothing but the dataset."""
    order = np.sort(indices)[torch.randperm(len(indices), generator=generator("subset")).numpy()]
    per = count // len(whole.classes)
    chosen = [order[whole.labels[order] == label][:per] for label in range(len(whole.classes))]
    return np.sort(np.concatenate(chosen))


def rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def key(row: dict[str, Any]) -> tuple[str, str, int]:
    return row["group"], row["name"], row["seed"]


def done(cell: Cell, seed: int) -> bool:
    return (cell.group, cell.name, seed) in {key(row) for row in rows()}


def write(cell: Cell, seed: int, found: dict[str, Any], note: str) -> None:
    row = {"group": cell.group, "name": cell.name, "seed": seed, **found, "note": note, **where()}
    print(json.dumps(row))
    with open(RESULTS, "a") as file:
        file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", nargs="?", help="folder of the students; needed to train")
    parser.add_argument("--data", help="CIFAR-10, KIND or KIND:PATH")
    parser.add_argument("--teacher", help="checkpoint, or whatever `compress teacher import` takes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--only", choices=["epochs", "time", "options"])
    parser.add_argument("--note", default="")
    parser.add_argument("--table", action="store_true", help="write docs/results.md from the rows; trains nothing")
    given = parser.parse_args()
    if given.table:
        cifar10_table.write(rows(), list(cells(given.seeds)))
    elif given.work and given.data and given.teacher:
        main(given)
    else:
        parser.error("WORK, --data and --teacher are needed, or --table")
