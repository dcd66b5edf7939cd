"""The figures of a report: accuracy by stage, and the attack set on every model."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.report.sources import Sources
from edge.core.artifact import Stage
from edge.core.interval import clopper_pearson

LEVEL = 0.95
Figure = dict[str, Any]


@dataclass(frozen=True)
class AttackSet:
    """The attack set's verdicts: M models (columns), A attacks, N images."""

    identities: list[str]  # M
    models: list[str]  # M labels
    attacks: list[str]  # A names
    index: "npt.NDArray[np.int64]"  # (N,) position in the dataset
    clean: "npt.NDArray[np.uint8]"  # (N, C, H, W)
    adversarial: "npt.NDArray[np.uint8]"  # (A, N, C, H, W)
    right: "npt.NDArray[np.bool_]"  # (M, N) clean prediction is right
    standing: "npt.NDArray[np.bool_]"  # (A, M, N) right, and the attack did not break it
    predictions: "npt.NDArray[np.integer[Any]]"  # (A, M, N) of the candidates

    @property
    def images(self) -> int:
        return int(self.right.shape[1])

    def worst(self, identity: str) -> "tuple[Figure, Figure] | None":
        """Clean and pointwise worst-case accuracy of the model of that identity, None if it is not in the set."""
        if identity not in self.identities:
            return None
        m = self.identities.index(identity)
        standing = self.standing[:, m].all(0)
        return figure(int(self.right[m].sum()), self.images), figure(int(standing.sum()), self.images)

    def matrix(self) -> dict[str, Any]:
        """The document's `matrix`."""
        return {
            "attacks": self.attacks,
            "models": self.models,
            "n": self.images,
            "robust": self.standing.mean(2).tolist(),
            "clean": self.right.mean(1).tolist(),
            "worst": self.standing.all(0).mean(1).tolist(),
        }


def read_attack_set(stage: "Stage | None") -> "AttackSet | None":
    """The arrays and names of an attack-set stage."""
    if stage is None:
        return None
    described = json.loads(stage.file("attack-set.json").read_text())
    with np.load(stage.file("attack-set.npz")) as arrays:
        right = arrays["clean_logits"].argmax(2) == arrays["labels"]
        return AttackSet(
            identities=[model["identity"] for model in described["models"]],
            models=[model["label"] for model in described["models"]],
            attacks=[attack["name"] for attack in described["attacks"]],
            index=arrays["index"],
            clean=arrays["clean"],
            adversarial=arrays["adversarial"],
            right=right,
            standing=right & ~arrays["broken"],
            predictions=arrays["predictions"],
        )


def figure(count: int, n: int) -> Figure:
    """A share with its exact interval, as in a statement."""
    return {
        "value": count / n,
        "count": count,
        "n": n,
        "interval": list(clopper_pearson(count, n, LEVEL)),
        "level": LEVEL,
    }


def by_stage(found: Sources, attack_set: "AttackSet | None", statements: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The document's `stages`: baselines without robustness, teacher, student, other baselines, twin, artifacts."""
    rows = [(_rank(name, stage), _trained(name, stage, attack_set)) for name, stage in found.trained()]
    rows.sort(key=lambda ranked: ranked[0])
    return [*(row for _, row in rows), *_artifacts(found, attack_set, statements)]


def _rank(name: str, stage: Stage) -> int:
    if name.startswith("baselines/"):
        return 0 if stage.config.get("method") == "normal" else 3
    return {"teacher": 1, "student": 2, "quantized": 4}[name]


def _trained(name: str, stage: Stage, attack_set: "AttackSet | None") -> dict[str, Any]:
    """The row of a network: one PGD attack on the test split, and what the attack set did to it."""
    test = stage.metrics.get("test")
    worst = attack_set.worst(stage.identity) if attack_set else None
    how = [f"PGD-{test['steps']} on {test['n']} test images"] if test else []
    if attack_set and worst:
        how.append(f"worst of {len(attack_set.attacks)} attacks with gradients on {attack_set.images} test images")
    return {
        "label": "quantized twin" if name == "quantized" else name.removeprefix("baselines/"),
        "detail": _detail(name, stage),
        "parameters": stage.metrics.get("parameters"),
        "bytes": _weights(stage),
        "clean": figure(round(test["clean"] * test["n"]), test["n"]) if test else None,
        "pgd": figure(round(test["robust"] * test["n"]), test["n"]) if test else None,
        "pgd_steps": test["steps"] if test else None,
        "worst": worst[1] if worst else None,
        "bound": True,  # nothing without gradients ran on a network
        "how": "; ".join(how) or "not measured",
    }


def _detail(name: str, stage: Stage) -> str:
    """What kind of network it is: `wrn-10-4, pgd-at`; for the twin how it was quantized."""
    keys = ("mode",) if name == "quantized" else ("model", "method")
    parts = [str(stage.config[key]) for key in keys if key in stage.config]
    return ", ".join([*parts, *(["baseline"] if name.startswith("baselines/") else [])])


def _weights(stage: Stage) -> "int | None":
    entry = stage.manifest["payload"].get("weights.safetensors")
    return entry["bytes"] if entry else None


def _artifacts(
    found: Sources, attack_set: "AttackSet | None", statements: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """A row for each verified artifact, then one for each exported file that was not verified."""
    exported = {stage.identity: stage for stage in found.exported.values()}
    seen = set()
    for label, predicate in statements.items():
        identity = predicate["artifact"]["identity"]
        seen.add(identity)
        parameters = exported[identity].metrics.get("parameters") if identity in exported else None
        yield _verified(label, predicate, parameters)
    for name, stage in found.exported.items():
        if stage.identity not in seen:
            yield _unverified(name, stage, attack_set)


def _verified(label: str, predicate: Mapping[str, Any], parameters: "int | None") -> dict[str, Any]:
    figures, attacks = predicate["figures"], len(predicate["attacks"])
    bound = figures["robust"] is None
    covered = "protocol not covered" if bound else "protocol covered"
    return {
        "label": label,
        "detail": f"{predicate['artifact']['file']}, verified",
        "parameters": parameters,
        "bytes": predicate["artifact"]["bytes"],
        "clean": figures["clean"],
        "pgd": None,
        "pgd_steps": None,
        "worst": figures["upper_bound"] if bound else figures["robust"],
        "bound": bound,
        "how": f"worst of {attacks} attacks on the file itself, {predicate['data']['n']} test images; {covered}",
    }


def _unverified(name: str, stage: Stage, attack_set: "AttackSet | None") -> dict[str, Any]:
    worst = attack_set.worst(stage.identity) if attack_set else None
    how = "not verified"
    if attack_set and worst:
        how += f"; the attack set replayed on it, {len(attack_set.attacks)} attacks on {attack_set.images} test images"
    return {
        "label": f"{name} {stage.metrics.get('precision', '')}".strip(),
        "detail": "exported, not verified",
        "parameters": stage.metrics.get("parameters"),
        "bytes": stage.metrics.get("bytes"),
        "clean": worst[0] if worst else None,
        "pgd": None,
        "pgd_steps": None,
        "worst": worst[1] if worst else None,
        "bound": True,
        "how": how,
    }
