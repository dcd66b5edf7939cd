"""The attack-set stage: images made with gradients against student, twin and artifact, replayed on all of them.

The parts of the protocol that need gradients: white box on the twin and on the float student, margin and temperature
losses, hybrid BPDA (forward on the artifact, backward through its twin) and differential images. What needs only
the artifact (replay, Square, a decision-based attack) is `edge.verify`'s.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from compress import artifact
from compress.artifact import Plan, Stage, Work
from compress.attacks import grid
from compress.attacks.against import Candidates, Subject, attack_all
from compress.config import AttackConfig
from compress.data import Dataset
from compress.errors import CompressError
from compress.stages import lineage, load, load_data, plan_of
from edge import checks, open_runner

ARRAYS, INDEX = "attack-set.npz", "attack-set.json"


def plan(config: AttackConfig, inputs: Mapping[str, Any]) -> Plan:
    """What decides the result."""
    return plan_of("attack-set", config, _read(inputs))


def run(config: AttackConfig, inputs: Mapping[str, Any], out: "Path | str", *, replace: bool = False) -> Stage:
    """Attack `inputs["student"]`, its `"quantized"` twin if given, and every artifact in `"exported"`, into `out`."""
    stages = _read(inputs)

    def make(work: Work) -> None:
        dataset = load_data(config.data, *stages.values())
        index = choose(dataset, config.images)
        subjects = _subjects(stages)
        clean, labels = dataset.images[index], dataset.labels[index]
        found = attack_all(subjects, clean, labels, config)
        predictions = _replay(subjects, found)
        broken = _broken(predictions, found, clean, labels, config)
        logits = np.stack([subject.infer(clean) for subject in subjects])
        with open(work.add_payload(ARRAYS), "wb") as file:
            np.savez(
                file,
                clean=clean,
                labels=labels,
                index=index,
                adversarial=np.stack([entry.images for entry in found]),
                predictions=predictions,
                broken=broken,
                clean_logits=logits,
            )
        description = _describe(stages, subjects, found, dataset, config)
        artifact.write_atomic(work.add_payload(INDEX), json.dumps(description, indent=2, ensure_ascii=False) + "\n")
        work.metrics = _metrics(subjects, logits, labels, broken)

    return artifact.build(
        out, plan_of("attack-set", config, stages), make, lineage=lineage(config, stages), replace=replace
    )


def choose(dataset: Dataset, count: "int | None") -> np.ndarray:
    """Indices of the test images to attack, in dataset order: all, or the first of each class in equal numbers."""
    test = dataset.splits["test"]
    if count is None:
        return test
    if count > len(test):
        raise CompressError(f"images: {count} asked for, the test split of {dataset.name} has {len(test)}")
    rank = np.zeros(len(test), dtype=np.int64)  # how many of its class stand before each image
    for label in np.unique(dataset.labels[test]):
        members = dataset.labels[test] == label
        rank[members] = np.arange(members.sum())
    return np.sort(test[np.argsort(rank, kind="stable")[:count]])


def _read(inputs: Mapping[str, Any]) -> dict[str, Stage]:
    """The stages by role: student, quantized, exported-0, …; each artifact made from one of the two."""
    stages = {"student": artifact.read(inputs["student"], ("student", "teacher"))}
    if inputs.get("quantized"):
        quantized = artifact.read(inputs["quantized"], ("quantized",))
        _same(quantized, "student", [stages["student"]])
        stages["quantized"] = quantized
    for number, where in enumerate(inputs.get("exported") or []):
        exported = artifact.read(where, ("exported",))
        _same(exported, "model", list(stages.values())[:2])
        stages[f"exported-{number}"] = exported
    return stages


def _same(stage: Stage, role: str, origins: list[Stage]) -> None:
    made_from = stage.manifest["plan"]["inputs"][role]
    if made_from not in [origin.identity for origin in origins]:
        given = " or ".join(str(origin.path) for origin in origins)
        raise CompressError(
            f"{stage.path}: made from another {role} ({made_from:.12}) than {given}; "
            f"give the folders of one chain (--quantized for an INT8 artifact)"
        )


def _subjects(stages: Mapping[str, Stage]) -> list[Subject]:
    """Everything that is attacked, opened: the torch models first, then the artifacts with their twins."""
    models = {
        stage.identity: Subject(role, "student" if role == "student" else "twin", stage, load(stage))
        for role, stage in stages.items()
        if role in ("student", "quantized")
    }
    subjects = list(models.values())
    for role, stage in stages.items():
        if role.startswith("exported-"):
            twin = models[stage.manifest["plan"]["inputs"]["model"]]
            label = _label(stage.path, [subject.label for subject in subjects])
            subjects.append(Subject(label, "artifact", stage, twin.model, open_runner(stage.path), twin.label))
    return subjects


def _label(path: Path, taken: list[str]) -> str:
    """A short name of an artifact: its folder's, with its parent's where that is taken."""
    name = path.resolve().name
    return name if name not in taken else f"{path.resolve().parent.name}/{name}"


def _replay(subjects: list[Subject], found: list[Candidates]) -> np.ndarray:
    """What each model says of each candidate: int16 (attacks, models, images)."""
    return np.array([[subject.infer(entry.images).argmax(1) for subject in subjects] for entry in found], np.int16)


def _broken(
    predictions: np.ndarray, found: list[Candidates], clean: np.ndarray, labels: np.ndarray, config: AttackConfig
) -> np.ndarray:
    """Which candidates are admissible and misclassified: bool (attacks, models, images)."""
    allowed = np.array([checks.admissible(entry.images, clean, config.threat.radius) for entry in found])
    return (predictions != labels) & allowed[:, None]


def _describe(
    stages: Mapping[str, Stage],
    subjects: list[Subject],
    found: list[Candidates],
    dataset: Dataset,
    config: AttackConfig,
) -> dict[str, Any]:
    return {
        "format": 1,
        "data": dataset.name,
        "classes": len(dataset.classes),
        "threat": {
            "norm": config.threat.norm,
            "eps": config.threat.eps,
            "grid_radius": grid.radius(config.threat.eps),
        },
        "models": [subject.describe() for subject in subjects],
        "attacks": [entry.describe() for entry in found],
    }


def _metrics(subjects: list[Subject], logits: np.ndarray, labels: np.ndarray, broken: np.ndarray) -> dict[str, Any]:
    """Clean and worst-case accuracy over the set, by model."""
    right = logits.argmax(2) == labels
    standing = right & ~broken.any(0)
    return {
        "n": len(labels),
        "clean": {subject.label: float(right[m].mean()) for m, subject in enumerate(subjects)},
        "robust": {subject.label: float(standing[m].mean()) for m, subject in enumerate(subjects)},
    }
