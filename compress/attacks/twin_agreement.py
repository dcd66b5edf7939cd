"""Does an artifact say what the network says that its gradients come from? Asked before attacks take their time."""

from typing import Any

import numpy as np
import torch

from compress.attacks import grid, losses
from compress.attacks.pgd import pgd
from compress.attacks.rounding import tensors
from compress.attacks.subjects import Subject
from compress.data.split import to_float
from edge.verify.alarms import MIN_AGREEMENT, disagreement

STEPS = 5  # of the probe: adversarial enough to show values that clean images do not reach
MOST = 256  # images of the probe
FEW = 3  # images that decide nothing: near a boundary one 8-bit rounding turns a prediction


def probe(artifact: Subject, clean: np.ndarray, labels: np.ndarray, eps: str) -> dict[str, Any]:
    """Argmax agreement of artifact and twin on uint8 `clean` (N,C,H,W) and on quick adversarial images of the twin.

    {"clean": {"n", "argmax_agreement"}, "adversarial": {…}}
    """
    assert artifact.model is not None
    chosen, y = clean[:MOST], labels[:MOST]
    radius = grid.radius(eps) / 255
    moved = []
    for images, wanted in tensors(chosen, y, batch_size=128):
        x, loss = to_float(images), losses.cross_entropy(wanted)
        found = pgd(artifact.model, x, loss, start=x, eps=radius, step_size=radius / 2, steps=STEPS)
        moved.append(grid.snap(found, images, eps))
    twin = Subject("", "twin", "", artifact.model)
    return {
        "clean": _agreement(artifact, twin, clean),
        "adversarial": _agreement(artifact, twin, torch.cat(moved).numpy()),
    }


def alarm(label: str, twin: str, found: dict[str, Any]) -> "dict[str, Any] | None":
    """What is said of an artifact that differs from its twin on more than 1 % of a kind of image, and on 4 at least."""
    side, share, count, n = disagreement(found)
    if share >= MIN_AGREEMENT or count <= FEW:
        return None
    meaning = (
        f"{label} does not compute what its twin {twin} computes: {count} of {n} predictions on {side} images differ; "
        f"its gradients are another network's"
    )
    return {"name": "twin disagrees", "model": label, "twin": twin, "count": count, "n": n, "meaning": meaning}


def _agreement(artifact: Subject, twin: Subject, images: np.ndarray) -> dict[str, Any]:
    same = artifact.infer(images).argmax(1) == twin.infer(images).argmax(1)
    return {"n": len(images), "argmax_agreement": float(same.mean())}
