"""The white box of the protocol: the gradient part of an ensemble on one torch network, every attack on its own.

Square and decisions are left to `edge.verify.verify`, which asks the artifact itself.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch

from compress.attacks import grid, losses, presets
from compress.attacks.ascent import Ascent
from compress.attacks.contract import Attack
from compress.attacks.ensemble import evaluate
from compress.attacks.subjects import Subject
from compress.config import AttackConfig
from edge.attacks import checks
from edge.statement.statement import figure

HERE = "torch on the workstation"


@dataclass(frozen=True)
class Candidate:
    """One attack's float images (N,C,H,W), within the grid's radius."""

    name: str
    parameters: dict[str, Any]
    images: np.ndarray


def attack(
    subject: Subject, clean: np.ndarray, labels: np.ndarray, ids: np.ndarray, config: AttackConfig
) -> tuple[list[Candidate], dict[str, Any]]:
    """Every attack's candidates at the grid's radius, and the figure that they reach as floats at the real ε.

    The second search is spared where ⌊255 ε⌋ / 255 is ε itself.
    """
    radius = grid.radius(config.threat.eps) / 255
    found = list(_search(subject, clean, labels, ids, config, radius))
    eps = Fraction(config.threat.eps)
    at_eps = found
    if Fraction(grid.radius(config.threat.eps), 255) != eps:
        at_eps = list(_search(subject, clean, labels, ids, config, float(eps)))
    return found, _figure(subject, at_eps, clean, labels, config)


def _search(
    subject: Subject, clean: np.ndarray, labels: np.ndarray, ids: np.ndarray, config: AttackConfig, radius: float
) -> Iterator[Candidate]:
    assert subject.model is not None
    if config.ensemble == "none":
        at = subject.label
        ascent = Ascent(f"pgd-ce@{at}", "white-box", at, HERE, subject.model, losses.cross_entropy)
        images = ascent.run(clean, labels, config, radius).numpy()
        yield Candidate("pgd-ce", ascent.parameters(config, radius), images)
        return
    for one in _plan(subject, clean, config):
        result = evaluate(
            subject.model,
            clean,
            labels,
            (one,),
            eps=radius,
            seed=config.seed,
            batch_size=config.batch_size,
            precision="float32",  # of a quantized network another rounding is another network
            ids=ids,
        )
        parameters = {**one.parameters(), "ensemble": config.ensemble, "seed": config.seed}
        yield Candidate(one.name, parameters, result.adversarial)


def _plan(subject: Subject, clean: np.ndarray, config: AttackConfig) -> list[Attack]:
    plan = presets.build(config.ensemble, subject.infer(clean[:1]).shape[1])
    return [one for one in plan if not presets.gradient_free(one.name)]


def _figure(
    subject: Subject, found: list[Candidate], clean: np.ndarray, labels: np.ndarray, config: AttackConfig
) -> dict[str, Any]:
    """Worst case over float candidates at the real ε, nothing rounded; only counts, the images are not kept."""
    right = subject.infer(clean).argmax(1) == labels
    standing = right.copy()
    for one in found:
        broken = subject.infer(one.images).argmax(1) != labels
        standing &= ~(broken & checks.admissible(one.images, clean, config.threat.radius))
    return {
        "eps": config.threat.eps,
        "attacks": [one.name for one in found],
        "clean": figure(int(right.sum()), len(labels)),
        "robust": figure(int(standing.sum()), len(labels)),
    }


def tensor(candidate: Candidate) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(candidate.images))
