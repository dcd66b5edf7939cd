"""Our standard ensemble against the maintained AutoAttack package: same model, same images, one run.

    python benchmarks/attack_ensemble.py MODEL [--images 500] [--eps 8/255] [--parts 2] [--temperature 1e-3]
        [--precision auto] [--state FOLDER] [--noise-floor] [--note "…"]

MODEL is a teacher, student or quantized stage; its dataset is found through its manifest. The images are cut into
`--parts` on which the two take turns, the first one changing, so that a drifting machine treats both alike. Prints and,
from 64 images, appends to benchmarks/results/attack_ensemble.jsonl: worst-case accuracies, images that one breaks and
the other does not, times, our time by attack. `--noise-floor` runs the package a second time with another seed: how
many images it disagrees with itself on. `--temperature` divides the logits, which masks the gradients of cross-entropy.
With `--state` a killed run goes on where it was. The criterion: our accuracy at most 0.2 points above the package's,
and at most 0.3 % of the images broken by the package alone. Needs `pip install pyautoattack`.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.machine import where
from compress import folders, training
from compress.attacks import ensemble, presets
from compress.cli.stage import inherited
from compress.config import EvaluateConfig, parse
from compress.stages.attack import chosen_test_images
from edge.core import artifact

RESULTS = Path(__file__).parent / "results" / "attack_ensemble.jsonl"
POINTS, ALONE = 0.002, 0.003


class Sharpened(nn.Module):
    """Logits over a temperature."""

    def __init__(self, model: nn.Module, temperature: float) -> None:
        super().__init__()
        self.model, self.temperature = model, temperature

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return logits / self.temperature


def main(given: argparse.Namespace) -> None:
    base = inherited(given.model, folders.TORCH_STAGES, ["data", "threat"])
    if given.eps:
        base["threat"] = {"eps": given.eps}
    config = parse(EvaluateConfig, {**base, "images": given.images}, "benchmark")
    stage = artifact.read(given.model, folders.TORCH_STAGES)
    dataset = folders.load_data(config.data, stage)
    index = chosen_test_images(dataset, config.images)
    images, labels = dataset.images[index], dataset.labels[index]
    device = training.device()
    model: nn.Module = folders.load(stage).to(device)
    if given.temperature != 1:
        model = Sharpened(model, given.temperature).eval()
    bench = Bench(model, images, labels, len(dataset.classes), config.threat.radius, device, given)

    found: dict[str, list[dict[str, Any]]] = {"ours": [], "package": []}
    parts = np.array_split(np.arange(len(index)), given.parts)
    for number, part in enumerate(parts):
        for who in ("ours", "package")[:: -1 if number % 2 else 1]:
            found[who].append(bench.kept(f"{who}-{number}", getattr(bench, who), part))
    robust = {who: np.concatenate([np.array(one["robust"]) for one in each]) for who, each in found.items()}
    seconds, cpu = (
        {who: sum(one[clock] for one in each) for who, each in found.items()} for clock in ("seconds", "cpu_seconds")
    )
    by_attack = {name: sum(one["by_attack"][name] for one in found["ours"]) for name in found["ours"][0]["by_attack"]}
    alone = only(robust["ours"], robust["package"])
    accuracy = {who: float(standing.mean()) for who, standing in robust.items()}
    row: dict[str, Any] = {
        "model": {
            "architecture": stage.metrics.get("model", stage.config.get("model")),
            "stage": stage.kind,
            "identity": stage.identity[:12],
            "temperature": given.temperature,
        },
        "note": given.note,
        "data": dataset.name,
        "n": len(index),
        "eps": config.threat.eps,
        "precision": found["ours"][0]["precision"],
        "clean": sum(one["right"] for one in found["ours"]) / len(index),
        "robust": accuracy,
        "broken_by_package_alone": alone,
        "broken_by_ours_alone": only(robust["package"], robust["ours"]),
        "threads": torch.get_num_threads(),
        "seconds": {who: round(value, 1) for who, value in seconds.items()},
        "cpu_seconds": {who: round(value, 1) for who, value in cpu.items()},
        "package_over_ours": round(seconds["package"] / seconds["ours"], 2),
        "package_over_ours_cpu": round(cpu["package"] / cpu["ours"], 2),
        "ours_by_attack": {name: round(value, 1) for name, value in by_attack.items()},
        "criterion_met": accuracy["ours"] <= accuracy["package"] + POINTS and len(alone) <= ALONE * len(index),
    }
    if given.noise_floor:
        other = [bench.kept(f"again-{number}", bench.again, part) for number, part in enumerate(parts)]
        again = np.concatenate([np.array(one["robust"]) for one in other])
        row["package_differs_from_itself_on"] = int((again != robust["package"]).sum())
        row["package_again"] = float(again.mean())
    print(json.dumps(row, indent=2))
    if len(index) >= 64:  # fewer are a trial of this script
        with open(RESULTS, "a") as file:
            file.write(json.dumps({**row, **where()}) + "\n")


class Bench:
    """One model and its images; every method gives the verdicts of one tool on some of them."""

    def __init__(
        self,
        model: nn.Module,
        images: np.ndarray,
        labels: np.ndarray,
        classes: int,
        eps: float,
        device: torch.device,
        given: argparse.Namespace,
    ) -> None:
        self.model, self.images, self.labels, self.classes = model, images, labels, classes
        self.eps, self.device, self.given = eps, device, given

    def kept(self, name: str, work: "Callable[[np.ndarray], dict[str, Any]]", part: np.ndarray) -> dict[str, Any]:
        """What `work` found on that part, from the state folder where an earlier run left it there."""
        if self.given.state is None:
            return work(part)
        path = self.given.state / f"{name}.json"
        if not path.exists():
            self.given.state.mkdir(parents=True, exist_ok=True)
            artifact.write_atomic(path, json.dumps(work(part)))
        return dict(json.loads(path.read_text()))

    def ours(self, part: np.ndarray) -> dict[str, Any]:
        began = clocks()
        found = ensemble.evaluate(
            self.model,
            self.images[part],
            self.labels[part],
            presets.attack_plan("standard", self.classes),
            eps=self.eps,
            batch_size=self.given.batch_size,
            device=self.device,
            ids=part,
            precision=self.given.precision,
        )
        return {
            "robust": found.robust.tolist(),
            "right": int(found.right.sum()),
            **spent(began),
            "by_attack": {column.name: column.seconds for column in found.columns},
            "precision": found.precision,
        }

    def package(self, part: np.ndarray) -> dict[str, Any]:
        return self._package(part, seed=0)

    def again(self, part: np.ndarray) -> dict[str, Any]:
        return self._package(part, seed=1)

    def _package(self, part: np.ndarray, *, seed: int) -> dict[str, Any]:
        """Which images its standard version leaves standing, and its seconds."""
        from pyautoattack import AutoAttack

        x = torch.from_numpy(self.images[part]).float().to(self.device) / 255
        y = torch.from_numpy(self.labels[part]).to(self.device)
        began = clocks()
        attack = AutoAttack(self.model, norm="Linf", eps=self.eps, seed=seed, version="standard", device=self.device)
        found = attack.run_standard_evaluation(x, y, batch_size=self.given.batch_size)
        adversarial = found[0] if isinstance(found, tuple) else found
        with torch.no_grad():
            right = torch.cat([self.model(x).argmax(1) for x in adversarial.split(self.given.batch_size)]) == y
        return {"robust": right.cpu().tolist(), **spent(began)}


def clocks() -> tuple[float, float]:
    """On the wall, and of this process on all its cores: the second does not count who else used them."""
    return time.monotonic(), time.process_time()


def spent(began: tuple[float, float]) -> dict[str, float]:
    wall, cpu = (now - then for now, then in zip(clocks(), began, strict=True))
    return {"seconds": wall, "cpu_seconds": cpu}


def only(standing: np.ndarray, elsewhere: np.ndarray) -> list[int]:
    """Places of the images that stand in the first verdicts and fell in the second."""
    return [int(i) for i in np.flatnonzero(standing & ~elsewhere)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--images", type=int)
    parser.add_argument("--eps")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--parts", type=int, default=1)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument("--state", type=Path)
    parser.add_argument("--noise-floor", action="store_true")
    parser.add_argument("--note", default="")
    main(parser.parse_args())
