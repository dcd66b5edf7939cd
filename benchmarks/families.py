"""Transformers and convolutional networks teach each other.

    python benchmarks/families.py [--data digits] [--seed 0] [--epochs 40] [--pairs resnet20:vit-nano-2 …] [--work DIR]

A teacher of each family by adversarial training, then students by VGap from the teachers named before the colon. SGD
trains the networks with BatchNorm, AdamW the others, over the first half of the run with a growing radius: from random
weights a transformer stays at chance under the full one. Appends a row a network to benchmarks/results/families.jsonl:
clean and robust test accuracy (PGD-20 on cross-entropy, radius 40/255 on digits, else 8/255) with n. On digits about 6
minutes on one idle core.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.machine import where
from compress.config import StudentConfig, TeacherConfig, parse
from compress.stages import distill, teacher
from edge.core.artifact import Stage

RESULTS = Path(__file__).parent / "results" / "families.jsonl"
PAIRS = ("resnet20:vit-nano-2", "resnet20:convnext-yocto-1", "convnext-yocto-1:vit-nano-2", "vit-nano-2:resnet8")
SGD: dict[str, Any] = {"epochs": 10}
ADAMW: dict[str, Any] = {"optimizer": "adamw", "clip": 1.0, "batch_size": 64}
RECIPES = {"vit": ADAMW | {"lr": 0.001}, "convnext": ADAMW | {"lr": 0.004}}


def section(data: str, model: str, method: str, seed: int, epochs: int) -> dict[str, Any]:
    """The configuration that trains a network of that family."""
    recipe = RECIPES.get(model.partition("-")[0])
    family = SGD if recipe is None else {**recipe, "epochs": epochs if model.startswith("vit") else epochs // 2}
    warmup = 0.0 if recipe is None else 0.5 if method == "pgd-at" else 0.25
    attack = {"steps": 3 if method == "pgd-at" else 2, "eps_warmup": warmup}
    threat = {"eps": "40/255" if data == "digits" else "8/255"}
    brief = {"data": data, "threat": threat, "precision": "float32", "validate_steps": 3, "seed": seed}
    return {**brief, **family, "model": model, "method": method, "attack": attack}


def report(made: Stage, row: dict[str, Any]) -> None:
    test = made.metrics["test"]
    row = {"data": made.config["data"], "eps": made.config["threat"]["eps"], **row}
    figures = {key: round(test[key], 4) for key in ("clean", "robust")}
    row = {**row, "n": test["n"], **figures, "seconds": made.metrics["seconds"]}
    print(json.dumps(row), flush=True)
    with open(RESULTS, "a") as file:
        file.write(json.dumps({**row, **where()}) + "\n")


def main(data: str, seed: int, epochs: int, pairs: list[str], work: Path) -> None:
    for pair in pairs:
        name, _, model = pair.partition(":")
        known = (work / name).exists()
        config = parse(TeacherConfig, section(data, name, "pgd-at", seed, epochs), "benchmark")
        guide = teacher.run(config, teacher.TeacherInputs(), work / name)
        if not known:
            report(guide, {"teacher": None, "model": name, "seed": seed, "epochs": config.epochs})
        content = {**section(data, model, "vgap", seed, epochs // 2), "teacher_floor": 0.0}
        content["options"] = {"projection": "learned" if model.startswith("convnext") else "principal"}
        student = parse(StudentConfig, content, "benchmark")
        inputs = distill.StudentInputs(teacher=guide.path)
        made = distill.run(student, inputs, work / pair.replace(":", "-"))
        report(made, {"teacher": name, "model": model, "seed": seed, "epochs": student.epochs})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--pairs", nargs="+", default=list(PAIRS))
    parser.add_argument("--work", type=Path, help="folder that keeps the stages, so that a stopped run goes on")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        main(arguments.data, arguments.seed, arguments.epochs, arguments.pairs, arguments.work or Path(folder))
