"""How far a loss's gradient by the student's weights is from float64's, when the passes are in bfloat16.

    python benchmarks/gradient_precision.py [--batches 5]

A student and a teacher, ResNet-8 with random weights and BatchNorm's statistics of the digits; batches of 64 digits,
and images at ε from them, a random sign a pixel. For each part of each method's loss: the norm of the difference from
the gradient in float64, over that gradient's norm; medians over batches. `igdm, as rounded` is IGDM's difference from
bfloat16 passes as they come, which training does not take. Appends a row a radius to
benchmarks/results/gradient_precision.jsonl. About half a minute.
"""

import argparse
import copy
import json
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
from torch import Tensor

from benchmarks.machine import where
from compress import data, networks
from compress.data.split import Split
from compress.methods import registry
from compress.methods.objective import Objective, TrainingBatch, Views
from compress.methods.scores import divergences
from compress.networks.base import Classifier
from compress.numerics import precision
from compress.numerics.seeds import generator
from compress.training.passes import Guide, Passes

RESULTS = Path(__file__).parent / "results" / "gradient_precision.jsonl"
METHODS = ("pgd-at", "rslad", "trades", "mart", "dgad", "saad", "vgap", "igdm")
RADII = (8, 40)
BATCH_SIZE, LOOKS = 64, 20
AS_ROUNDED = "igdm, as rounded"


def network(seed: int, split: Split) -> Classifier:
    """Random weights, BatchNorm's statistics those of the digits."""
    torch.manual_seed(seed)
    model = networks.build_network("resnet8", channels=1, classes=10)
    with torch.no_grad():
        for x, _ in list(split.batches(BATCH_SIZE))[:LOOKS]:
            model.train()(x)
    return model


def rounded_misfit(views: Views) -> Tensor:
    """IGDM's divergence from passes as they come."""
    mirrored = 2 * views.x - views.x_adv
    student = views.adversarial.logits - views.student.forward_features(mirrored).logits
    return divergences(views.taught_adversarial.logits - views.batch.teach(mirrored).logits, student)


def gradients(
    method: str,
    objective: Objective,
    student: Classifier,
    teacher: Classifier,
    batch: tuple[Tensor, Tensor, Tensor],
    kind: str,
) -> Mapping[str, Tensor]:
    """Part of the loss → its gradient by all weights, float64; `kind` as of `numerics.precision`, or `float64`."""
    dtype = torch.float64 if kind == "float64" else torch.float32
    x, y, x_adv = batch
    passes, guide = Passes(copy.deepcopy(student).to(dtype).train()), Guide(copy.deepcopy(teacher).to(dtype))
    passes.precision = guide.precision = precision.FLOAT32 if kind == "float64" else kind
    views = Views(passes, TrainingBatch(x.to(dtype), y, guide, progress=1.0), x_adv.to(dtype))
    terms = dict(copy.deepcopy(objective).to(dtype).terms(views))
    if method == "igdm":
        terms[AS_ROUNDED] = rounded_misfit(views)
    weights = list(passes.parameters())
    found = {}
    for name, term in terms.items():
        by_weight = torch.autograd.grad(term.mean(), weights, retain_graph=True, allow_unused=True)
        found[name] = torch.cat([each.flatten().double() for each in by_weight if each is not None])
    return found


def main(batches: int) -> None:
    split = Split.of(data.load_dataset("digits"), "train", torch.device("cpu"))
    student, teacher = network(0, split), network(1, split).eval().requires_grad_(False)
    shown = list(split.batches(BATCH_SIZE))[:batches]
    for radius in RADII:
        errors: dict[str, list[float]] = {}
        for method in METHODS:
            for number, (x, y) in enumerate(shown):
                signs = torch.where(torch.rand(x.shape, generator=generator(number)) < 0.5, -1.0, 1.0)
                batch = (x, y, x + radius / 255 * signs)
                objective = registry.build_objective(
                    method, {}, student, teacher, [part for part, _ in shown], images=len(split.labels)
                )
                rounded, exact = (
                    gradients(method, objective, student, teacher, batch, kind)
                    for kind in (precision.BFLOAT16, "float64")
                )
                for part, wanted in exact.items():
                    if wanted.norm() == 0:
                        continue
                    name = part if part == AS_ROUNDED else f"{method} {part}"
                    errors.setdefault(name, []).append(float((rounded[part] - wanted).norm() / wanted.norm()))
        row = {
            "eps": f"{radius}/255",
            "n": batches,
            "batch_size": BATCH_SIZE,
            "relative_error": {name: float(f"{statistics.median(found):.3g}") for name, found in errors.items()},
        }
        print(json.dumps(row, indent=1))
        with open(RESULTS, "a") as file:
            file.write(json.dumps({**row, **where()}) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=5)
    main(parser.parse_args().batches)
