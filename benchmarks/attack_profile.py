"""What limits the ensemble: where the time of each attack goes, and how near it is to what the machine multiplies.

    python benchmarks/attack_profile.py MODEL [--images 64] [--precision auto] [--note "…"]

MODEL is a teacher, student or quantized stage; images are random, labels the model's own answers and the radius so
small that none falls. Every attack runs shortened under torch's profiler. The ceiling is a matrix product of 2,048 in
the precision of the search, measured in the same run; a pass backward to the image counts as many operations as the
one forward. Appends to benchmarks/results/attack_profile.jsonl.
"""

import argparse
import json
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.machine import where
from compress import folders, training
from compress.attacks import inside, presets
from compress.attacks.contract import EnsembleAttack, Model, Task
from compress.networks import network_files
from compress.numerics import precision
from edge.core import artifact

RESULTS = Path(__file__).parent / "results" / "attack_profile.jsonl"
ATTACKS = ("apgd-ce-10", "apgd-t-2", "fab-t-2", "square-100")
EPS = 1e-4
#: What an operator's time counts as, by a part of its name; the first that fits.
KINDS = {
    "convolution": ("conv",),
    "activation": ("clamp_min", "threshold", "relu", "silu", "sigmoid"),
    "residual sum": ("aten::add", "aten::add_"),
    "normalisation": ("batch_norm",),
    "copy and cast": ("copy", "contiguous", "clone"),
    "sort": ("sort",),
}


def main(given: argparse.Namespace) -> None:
    stage = artifact.read(given.model, folders.TORCH_STAGES)
    device = training.device()
    model = folders.load(stage).to(device)
    channels, height, width = network_files.read_architecture(stage.path)["input"]
    torch.manual_seed(0)
    x = torch.rand(given.images, channels, height, width, device=device)
    with torch.no_grad():
        y = model(x).argmax(1)
    wanted = precision.resolve(given.precision, device)
    search = inside.search_model(model, wanted, x)
    task = Task(search, x, y, np.arange(len(x)), EPS, "linf", 0)
    used = inside.precision_of(search)
    peak = ceiling(used, device)
    attacks = [presets.attack_plan([name], 10)[0] for name in ATTACKS]
    row: dict[str, Any] = {
        "model": {
            "architecture": stage.metrics.get("model", stage.config.get("model")),
            "identity": stage.identity[:12],
        },
        "note": given.note,
        "images": given.images,
        "precision": used,
        "threads": torch.get_num_threads(),
        "matmul_gflops": round(peak),
        "attacks": {name: profiled(attack, task, peak) for name, attack in zip(ATTACKS, attacks, strict=True)},
    }
    print(json.dumps(row, indent=2))
    with open(RESULTS, "a") as file:
        file.write(json.dumps({**row, **where()}) + "\n")


class Counted:
    """A model that counts the images it passes: those with a gradient twice."""

    def __init__(self, model: Model) -> None:
        self.model, self.passes = model, 0

    def __call__(self, x: Tensor) -> Tensor:
        self.passes += len(x) * (1 + torch.is_grad_enabled())
        return self.model(x)


def profiled(attack: EnsembleAttack, task: Task, peak: float) -> dict[str, Any]:
    """Shares of the attack's operator time, and its floating-point operations a second beside the ceiling."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        task.model(task.x)
    counted = Counted(task.model)
    attack.run(replace(task, model=counted))
    work = counter.get_total_flops() / len(task.x) * counted.passes
    began = time.perf_counter()
    attack.run(task)
    seconds = time.perf_counter() - began
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        attack.run(task)
    times: Counter[str] = Counter()
    for event in seen.key_averages():
        times[kind(event.key)] += event.self_cpu_time_total
    gflops = work / seconds / 1e9
    return {
        "seconds": round(seconds, 2),
        "gflops": round(gflops),
        "of_ceiling": round(gflops / peak, 2),
        "shares": {name: round(spent / times.total(), 3) for name, spent in times.most_common()},
    }


def kind(operator: str) -> str:
    return next((name for name, parts in KINDS.items() if any(part in operator for part in parts)), "other")


def ceiling(used: str, device: torch.device, size: int = 2048) -> float:
    """GFLOP/s of a square matrix product, the best of five."""
    a = torch.rand(size, size, device=device, dtype=getattr(torch, used))
    times = []
    for _ in range(6):
        began = time.perf_counter()
        (a @ a)[0, 0].item()  # waits for a GPU too
        times.append(time.perf_counter() - began)
    return 2 * size**3 / min(times[1:]) / 1e9


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--precision", choices=precision.PRECISIONS, default="auto")
    parser.add_argument("--note", default="")
    main(parser.parse_args())
