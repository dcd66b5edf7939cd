"""Every case on every rank; rank 0 saves the results, and in what the ranks differ: compute.py FILE."""

import sys
from pathlib import Path
from typing import Any

import torch

from compress.numerics import ranks
from edge.core.artifact import Plan, Work
from tests.compress.rank_programs.cases import cases

OUT = Path(sys.argv[1])


def differences(found: "dict[str, dict[str, torch.Tensor]]") -> list[str]:
    everyone = ranks.gather(found)
    return [
        f"{name}: {key}"
        for name, tensors in found.items()
        for key, value in tensors.items()
        if not all(torch.equal(value, other[name][key]) for other in everyone)
    ]


def stage() -> dict[str, Any]:
    """A stage that takes all ranks, made twice."""
    folders: list[Path] = []

    def make(work: Work) -> None:
        folders.append(work.path)
        work.metrics = {"sum": sum(ranks.gather(ranks.rank()))}
        work.add_payload("result").write_text("the same on every rank")

    out = OUT.with_suffix(".stage")
    made = [ranks.build(out, Plan("test", {}, 0, {}, {}), make) for _ in range(2)]
    return {
        "identities": ranks.gather([each.identity for each in made]),
        "calls": ranks.gather(len(folders)),
        "own": ranks.gather(folders[0] == out.with_name(out.name + ".partial")),
        "left": ranks.gather(folders[0].exists()),
        "metrics": ranks.gather(made[0].metrics),
    }


torch.set_num_threads(1)
with ranks.started():
    found = {name: case() for name, case in cases()}
    objects = {
        "rank": [other["rank"] for other in ranks.gather({"rank": ranks.rank()})],
        "broadcast": ranks.gather(ranks.broadcast({"from": ranks.rank()})),
        "largest": ranks.gather(ranks.largest(ranks.rank() - 2.5)),
        "stage": stage(),
    }
    apart = differences(found)
    print("from", ranks.rank())
    print("progress of", ranks.rank(), file=sys.stderr)
    if ranks.rank() == 0:
        torch.save({"found": found, "apart": apart, "objects": objects, "world": ranks.world()}, OUT)
