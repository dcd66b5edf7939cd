"""INT8 against float ONNX, both through ONNX Runtime on the processor, in one process and by turns.

    taskset -c 1 nice -n -5 python benchmarks/ort_int8.py [--models resnet18 resnet20 mobilenetv2] [--threads 1]
        [--batch-sizes 1 32] [--rounds 20] [--image 32] [--note "…"]

Both files are what `compress export --target onnx` writes of one network with random weights: the time does not depend
on them, nor on the ranges, set on random images. A round is one call of each, ten times as many of one image; medians
count, beside them the quartiles. What of the INT8 file is executed in integers is counted in the graph that the runtime
makes of it. About two minutes.
Appends to benchmarks/results/ort_int8.jsonl.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import torch

from benchmarks.machine import where
from compress import networks
from compress.quantization import int8
from compress.quantization.grids import ONNX_RUNTIME
from edge.runtimes.onnxruntime.runner import OnnxRunner
from export.targets.onnx import float32, layers, qdq

RESULTS = Path(__file__).parent / "results" / "ort_int8.jsonl"
OPSET = 20


def main(given: argparse.Namespace) -> None:
    for name in given.models:
        files = written(name, given.image)
        executed = layers.executed_layers(files["int8"])
        for threads in given.threads:
            row: dict[str, Any] = {
                "model": name,
                "image": [3, given.image, given.image],
                "threads": threads,
                "bytes": {kind: len(content) for kind, content in files.items()},
                "integer_layers": len(executed.integer),
                "floating_layers": executed.floating,
                "batches": {str(size): compared(files, given, size, threads) for size in given.batch_sizes},
                "note": given.note,
            }
            print(json.dumps(row, indent=2))
            with open(RESULTS, "a") as file:
                file.write(json.dumps({**row, **where()}) + "\n")


def written(name: str, side: int) -> dict[str, bytes]:
    """The float and the INT8 file of one network."""
    torch.manual_seed(0)
    network = networks.build_network(name, channels=3, classes=10)
    images = torch.rand(16, 3, side, side)
    with torch.no_grad():
        for _ in range(3):
            network.train()(images)
    network.eval()
    found = {"float32": float32.emit_float32(network, images[0], OPSET)[0].SerializeToString()}
    network, layout = int8.quantize_network(network, [images])
    proto, modules = float32.emit_float32(int8.float_copy(network), images[0], OPSET)
    qdq.insert_pairs(proto, modules, qdq.Scales.of(network, layout, ONNX_RUNTIME))
    return found | {"int8": proto.SerializeToString()}


def compared(files: dict[str, bytes], given: argparse.Namespace, size: int, threads: int) -> dict[str, Any]:
    """Milliseconds a call of both files, and how many times faster INT8 is."""
    runners = {
        kind: OnnxRunner(content, where=kind, batch_size=size, threads=threads) for kind, content in files.items()
    }
    x = np.random.default_rng(0).random((size, 3, given.image, given.image), np.float32)
    taken: dict[str, list[float]] = {kind: [] for kind in runners}
    for number in range(given.rounds * (10 if size == 1 else 1) + 3):
        for kind, runner in runners.items():
            began = time.perf_counter()
            runner.infer(x)
            if number >= 3:  # the first ones warm up
                taken[kind].append(1e3 * (time.perf_counter() - began))
    found: dict[str, Any] = {kind: quartiles(each) for kind, each in taken.items()}
    return found | {"speedup": round(found["float32"]["median_ms"] / found["int8"]["median_ms"], 2)}


def quartiles(values: list[float]) -> dict[str, float]:
    low, middle, high = statistics.quantiles(values, n=4)
    return {"median_ms": round(middle, 3), "q1_ms": round(low, 3), "q3_ms": round(high, 3)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["resnet18", "resnet20", "mobilenetv2"])
    parser.add_argument("--threads", nargs="+", type=int, default=[1])
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[1, 32])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--image", type=int, default=32)
    parser.add_argument("--note", default="")
    main(parser.parse_args())
