"""What bfloat16 gains and costs in training, pass by pass: one row a network, arithmetic and pass.

    python benchmarks/training_precision.py [--networks resnet20,resnet18] [--batch-size 128] [--rounds 5]

Rows are JSON: network, batch, arithmetic, layout, and the fastest milliseconds of a gradient by the images (what an
attack is made of) and of one by all weights (what an update is).
"""

import argparse
import json
import platform
import time
from collections.abc import Callable

import torch
from torch.nn.functional import cross_entropy

from compress import networks, training
from compress.training.passes import LAYOUTS, Arithmetic


def fastest_ms(run: Callable[[], object], rounds: int, where: torch.device) -> float:
    """Of `rounds`, after one that warms up."""
    found = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        run()
        if where.type == "cuda":
            torch.cuda.synchronize(where)
        found.append(1000 * (time.perf_counter() - began))
    return round(min(found[1:]), 1)


def row(name: str, batch: int, rounds: int, arithmetic: Arithmetic, where: torch.device) -> "dict[str, object]":
    """One network in one arithmetic, on random images of 32×32."""
    torch.manual_seed(0)
    network = networks.build_network(name, channels=3, classes=10).to(where)
    arithmetic.put(network)
    passes = training.Passes(network)
    passes.precision = arithmetic.attack
    x, y = arithmetic.image(torch.rand(batch, 3, 32, 32, device=where)), torch.randint(10, (batch,), device=where)

    def attack() -> object:
        leaf = x.detach().requires_grad_()
        return torch.autograd.grad(cross_entropy(passes(leaf), y), leaf)

    def update() -> None:
        network.zero_grad()
        cross_entropy(passes(x), y).backward()

    network.eval()
    attacked = fastest_ms(attack, rounds, where)
    network.train()
    updated = fastest_ms(update, rounds, where)
    shown = {"network": name, "batch": batch, "precision": str(arithmetic), "layout": arithmetic.layout}
    return {**shown, "attack_ms": attacked, "update_ms": updated, "device": where.type, "torch": torch.__version__}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default="resnet20,resnet18")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    for wanted in given.networks.split(","):
        for kind in (Arithmetic(one, one, layout) for one in ("float32", "bfloat16") for layout in LAYOUTS):
            found = row(wanted, given.batch_size, given.rounds, kind, training.device())
            print(json.dumps({**found, "processor": platform.processor() or platform.machine()}), flush=True)
