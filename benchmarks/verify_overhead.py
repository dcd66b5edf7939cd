"""What verification costs beside the runtime: replay of an attack's images, and the Square attack.

    python benchmarks/verify_overhead.py EXPORTED [--images 10000] [--square-images 256] [--queries 200] [--rounds 3]

Random uint8 images of the artifact's shape: neither the runtime nor the bookkeeping depends on what they show. Replay
is logits and verdict of every image; the runtime's own time is that of its calls on the same batches, made ready
before. For Square the time inside the runtime's calls is taken while the attack runs. Replay and runtime take turns,
medians count. Appends a row to benchmarks/results/verify_overhead.jsonl.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np

from benchmarks.machine import where
from edge.attacks import checks
from edge.attacks.square import square
from edge.runtimes.runner import Runner, open_runner

RESULTS = Path(__file__).parent / "results" / "verify_overhead.jsonl"
EPS = 8 / 255


def main(given: argparse.Namespace) -> None:
    draw = np.random.default_rng(0)
    with open_runner(given.exported, batch_size=given.batch_size, threads=given.threads) as runner:
        clean = draw.integers(0, 256, (given.images, *runner.input_shape), dtype=np.uint8)
        moved = clean.astype(np.int16) + draw.integers(-8, 9, clean.shape)
        images, labels = moved.clip(0, 255).astype(np.uint8), draw.integers(0, runner.classes, given.images)
        row = {
            "artifact": str(Path(given.exported).name),
            "bytes": sum(file.stat().st_size for file in Path(given.exported).glob("*.onnx")),
            "runtime": runner.describe(),
            "batch_size": runner.batch_size,
            "replay": replay(runner, clean, images, labels, given.rounds),
            "square": attack(runner, clean[: given.square_images], given.queries),
            "note": given.note,
        }
    print(json.dumps(row, indent=2))
    with open(RESULTS, "a") as file:
        file.write(json.dumps({**row, **where()}) + "\n")


def replay(runner: Runner, clean: np.ndarray, images: np.ndarray, labels: np.ndarray, rounds: int) -> dict[str, Any]:
    """Seconds of replay and of the runtime alone on these images, and their ratio."""
    size = runner.batch_size
    whole = images[: len(images) // size * size].astype(np.float32) / np.float32(255)
    batches = [np.ascontiguousarray(whole[start : start + size]) for start in range(0, len(whole), size)]
    rest = len(images) - len(whole)
    if rest:
        last = np.zeros((size, *images.shape[1:]), np.float32)
        last[:rest] = images[-rest:].astype(np.float32) / np.float32(255)
        batches.append(last)

    def replayed() -> None:
        logits = runner.infer(images)
        _ = checks.admissible(images, clean, EPS) & checks.wrong(logits, labels)

    def alone() -> None:
        for batch in batches:
            runner._call(batch)

    seconds: dict[str, list[float]] = {"replay": [], "runtime": []}
    for number in range(rounds + 1):
        for name, run in (("replay", replayed), ("runtime", alone)):
            taken = timed(run)
            if number:  # the first round warms up
                seconds[name].append(taken)
    found = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "images": len(images),
        **{f"{name}_s": round(value, 3) for name, value in found.items()},
        "over_runtime": round(found["replay"] / found["runtime"], 3),
    }


def attack(runner: Runner, clean: np.ndarray, queries: int) -> dict[str, Any]:
    """Seconds of the Square attack and those inside the runtime; labels are the artifact's own, so all is attacked."""
    inside, call = 0.0, runner._call

    def counted(batch: np.ndarray) -> np.ndarray:
        nonlocal inside
        began = time.perf_counter()
        logits = call(batch)
        inside += time.perf_counter() - began
        return logits

    labels = runner.infer(clean).argmax(1)
    runner._call = counted  # type: ignore[method-assign]
    ids, size = np.arange(len(clean)), runner.batch_size
    whole = timed(
        lambda: square(runner.infer, clean, labels, eps=EPS, queries=queries, seed=0, ids=ids, batch_size=size)
    )
    return {
        "images": len(clean),
        "queries": queries,
        "seconds": round(whole, 3),
        "runtime_s": round(inside, 3),
        "inside": round(inside / whole, 3),
    }


def timed(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("exported")
    parser.add_argument("--images", type=int, default=10000)
    parser.add_argument("--square-images", type=int, default=256)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--note", default="")
    main(parser.parse_args())
