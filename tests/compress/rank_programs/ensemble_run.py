"""The ensemble on a small network: ensemble_run.py FILE STATE. Rank 0 writes what came of it into FILE (npz)."""

import sys
from typing import Any

import numpy as np
import torch

from compress import networks
from compress.attacks import presets
from compress.attacks.ensemble import evaluate
from compress.attacks.ensemble_outcomes import EnsembleResult
from compress.numerics import ranks

TABLES = ("right", "broken_by", "tried", "broken", "inconclusive", "adversarial", "margins", "predictions")


def attacked(state: "str | None" = None, **given: Any) -> EnsembleResult:
    """40 images in batches of 8: five batches, so that they do not go round evenly."""
    torch.manual_seed(0)
    network = networks.build_network("resnet8", channels=1, classes=10).eval().requires_grad_(False)
    images = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8), np.uint8)
    labels = network(torch.from_numpy(images).float() / 255).argmax(1).numpy()
    labels[::9] = (labels[::9] + 1) % 10
    plan = presets.attack_plan(["apgd-ce-5", "square-20"], 10)
    return evaluate(network, images, labels, plan, eps=0.02, batch_size=8, identity="net", state_folder=state, **given)


def tables(result: EnsembleResult) -> dict[str, np.ndarray]:
    return {name: getattr(result, name) for name in TABLES}


if __name__ == "__main__":
    torch.set_num_threads(1)
    with ranks.started():
        found = attacked(sys.argv[2])
        print(f"ranks: {ranks.world()}")
        if ranks.rank() == 0:
            np.savez(sys.argv[1], **tables(found))
