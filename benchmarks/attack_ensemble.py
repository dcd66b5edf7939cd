"""Our standard ensemble against the maintained AutoAttack package: same model, same images, one run.

    python benchmarks/attack_ensemble.py MODEL [--images 500] [--eps 8/255] [--noise-floor] [--note "…"]

MODEL is a teacher, student or quantized stage; its dataset is found through its manifest. Prints and, from 64 images,
appends to benchmarks/results/attack_ensemble.jsonl: worst-case accuracies, images that one breaks and the other does
not, times, our time by attack. `--noise-floor` runs the package a second time with another seed: how many images it
disagrees with itself on. The criterion: our accuracy at most 0.2 points above the package's, and at most 0.3 % of the
images broken by the package alone. Needs `pip install pyautoattack`.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import torch

from benchmarks.machine import where
from compress import artifact, fit, stages
from compress.attack import choose
from compress.attacks import ensemble, presets
from compress.cli.stage import inherited
from compress.config import EvaluateConfig, parse
from compress.models import Classifier

RESULTS = Path(__file__).parent / "results" / "attack_ensemble.jsonl"
POINTS, ALONE = 0.002, 0.003


def main(given: argparse.Namespace) -> None:
    base = inherited(given.model, stages.TORCH_STAGES, ["data", "threat"])
    if given.eps:
        base["threat"] = {"eps": given.eps}
    config = parse(EvaluateConfig, {**base, "images": given.images}, "benchmark")
    stage = artifact.read(given.model, stages.TORCH_STAGES)
    dataset = stages.load_data(config.data, stage)
    index = choose(dataset, config.images)
    images, labels = dataset.images[index], dataset.labels[index]
    device, model = fit.device(), stages.load(stage).to(fit.device())

    began = time.monotonic()
    ours = ensemble.evaluate(
        model,
        images,
        labels,
        presets.build("standard", len(dataset.classes)),
        eps=config.threat.radius,
        batch_size=given.batch_size,
        device=device,
    )
    our_seconds = time.monotonic() - began
    theirs, their_seconds = package(model, images, labels, config.threat.radius, given.batch_size, seed=0)
    alone = only(ours.robust, theirs)
    accuracy = {"ours": float(ours.robust.mean()), "package": float(theirs.mean())}
    row: dict[str, Any] = {
        "model": {
            "architecture": stage.metrics.get("model", stage.config.get("model")),
            "identity": stage.identity[:12],
        },
        "note": given.note,
        "data": dataset.name,
        "n": len(index),
        "eps": config.threat.eps,
        "clean": float(ours.right.mean()),
        "robust": accuracy,
        "broken_by_package_alone": alone,
        "broken_by_ours_alone": only(theirs, ours.robust),
        "seconds": {"ours": round(our_seconds, 1), "package": round(their_seconds, 1)},
        "package_over_ours": round(their_seconds / our_seconds, 2),
        "ours_by_attack": {column.name: column.seconds for column in ours.columns},
        "criterion_met": accuracy["ours"] <= accuracy["package"] + POINTS and len(alone) <= ALONE * len(index),
    }
    if given.noise_floor:
        again, _ = package(model, images, labels, config.threat.radius, given.batch_size, seed=1)
        row["package_differs_from_itself_on"] = int((again != theirs).sum())
    print(json.dumps(row, indent=2))
    if given.images is None or given.images >= 64:  # fewer are a trial of this script
        with open(RESULTS, "a") as file:
            file.write(json.dumps({**row, **where()}) + "\n")


def package(
    model: Classifier, images: np.ndarray, labels: np.ndarray, eps: float, batch_size: int, *, seed: int
) -> tuple[np.ndarray, float]:
    """Which images its standard version leaves standing, bool (N,), and its seconds."""
    from pyautoattack import AutoAttack

    device = next(model.parameters()).device
    x = torch.from_numpy(images).float().to(device) / 255
    y = torch.from_numpy(labels).to(device)
    began = time.monotonic()
    attack = AutoAttack(model, norm="Linf", eps=eps, seed=seed, version="standard", device=device)
    found = attack.run_standard_evaluation(x, y, batch_size=batch_size)
    adversarial = found[0] if isinstance(found, tuple) else found
    with torch.no_grad():
        right = torch.cat([model(part).argmax(1) for part in adversarial.split(batch_size)]) == y
    return right.cpu().numpy(), time.monotonic() - began


def only(standing: np.ndarray, elsewhere: np.ndarray) -> list[int]:
    """Places of the images that stand in the first verdicts and fell in the second."""
    return [int(i) for i in np.flatnonzero(standing & ~elsewhere)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--images", type=int)
    parser.add_argument("--eps")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--noise-floor", action="store_true")
    parser.add_argument("--note", default="")
    main(parser.parse_args())
