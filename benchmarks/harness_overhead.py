"""What the harness adds to a latency and to the time between queries, by a runner whose call takes a known 1 ms.

    python benchmarks/harness_overhead.py [--queries 3000] [--call-us 1000] [--note TEXT]

The null runner spins for that time and notes by its own clock when each call began and ended; the rest is the harness.

    inside              what a sample has beyond the call
    outside             from one call's end to the next one's beginning: that and all else; throughput suffers from it
    camera              what latency from the scheduled arrival has beyond the call, the wake-up included
    harness_and_infer   the same with the product's own check and conversion of uint8 images (1,3,32,32), which belong
                        to every sample by definition

Medians, since a mean holds whatever else the machine did; means beside them. About ten seconds; appends a row to
benchmarks/results/harness_overhead.jsonl.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np

from benchmarks.machine import where
from edge.bench.camera import run_camera
from edge.bench.harness import TimingClock, quiet_harness
from edge.bench.stream import KeptAnswers, Queries, Stream
from edge.runtimes.runner import Runner

RESULTS = Path(__file__).parent / "results" / "harness_overhead.jsonl"
FPS = 60
LOGITS = np.zeros((1, 10), np.float32)


class Null(Runner):
    """A call spins for `ns`; `calls` holds when each one began and ended."""

    input_shape, classes, batch_size = (3, 32, 32), 10, 1

    def __init__(self, ns: int) -> None:
        self.ns, self.calls = ns, list[tuple[int, int]]()

    def infer(self, x: np.ndarray) -> np.ndarray:
        return self._call(x)

    def _call(self, batch: np.ndarray) -> np.ndarray:
        began = time.perf_counter_ns()
        while (now := time.perf_counter_ns()) - began < self.ns:
            pass
        self.calls.append((began, now))
        return LOGITS


class Converting(Null):
    """As `Null`, with the check and conversion that every runner does."""

    infer = Runner.infer


def main(given: argparse.Namespace) -> None:
    ns, images = 1000 * given.call_us, np.zeros((64, 3, 32, 32), np.uint8)
    row: dict[str, Any] = {"call_us": given.call_us, "queries": given.queries}
    for name, runner in (("harness", Null(ns)), ("harness_and_infer", Converting(ns))):
        stream = warm(runner, images)
        with quiet_harness():
            stream.run(given.queries)
        began, ended = np.array(runner.calls).T
        inside, outside = stream.samples_ns - (ended - began), began[1:] - ended[:-1]
        row[name] = {"inside": told(inside, ns), "outside": told(outside, ns)}
    runner = Null(ns)
    stream = warm(runner, images)
    with quiet_harness():
        shot = run_camera(stream, FPS, given.queries / 10 / FPS)
    began, ended = np.array(runner.calls).T
    dropped = shot.frames - len(shot.answered)
    row["camera"] = {"fps": FPS, "dropped": dropped, **told(shot.latency_ns - (ended - began), ns)}
    row["note"] = given.note
    print(json.dumps(row, indent=2))
    with open(RESULTS, "a") as file:
        file.write(json.dumps({**row, **where()}) + "\n")


def warm(runner: Null, images: np.ndarray) -> Stream:
    """A stream after its warm-up."""
    stream = Stream(runner, Queries(images, 1), KeptAnswers(), TimingClock())
    stream.warm(100)
    runner.calls.clear()
    return stream


def told(added: np.ndarray, ns: int) -> dict[str, float]:
    """µs, and the median as a share of a call."""
    return {
        "p50_us": micro(np.percentile(added, 50)),
        "p99_us": micro(np.percentile(added, 99)),
        "mean_us": micro(added.mean()),
        "share_p50": round(float(np.percentile(added, 50)) / ns, 6),
    }


def micro(ns: float) -> float:
    return round(float(ns) / 1000, 3)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--queries", type=int, default=3000)
    parser.add_argument("--call-us", type=int, default=1000)
    parser.add_argument("--note", default="")
    main(parser.parse_args())
