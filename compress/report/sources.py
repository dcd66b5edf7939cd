"""The stages that a report is about, those of a run folder or those behind one verified stage, and their figures:
accuracy by stage, and the attack set on every model.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.core import artifact
from edge.core.artifact import MANIFEST, Stage
from edge.core.errors import CompressError
from edge.statement.statement import figure


@dataclass
class Sources:
    """What was found, each stage's hashes checked; what is absent or unfinished is None or missing."""

    title: str
    teacher: "Stage | None" = None
    student: "Stage | None" = None
    quantized: "Stage | None" = None
    attack_set: "Stage | None" = None
    analysis: "Stage | None" = None
    baselines: dict[str, Stage] = field(default_factory=dict)
    exported: dict[str, Stage] = field(default_factory=dict)
    verified: dict[str, Stage] = field(default_factory=dict)  # the shipped artifact first

    def trained(self) -> Iterator[tuple[str, Stage]]:
        """The networks with their names, in the order in which they are made."""
        if self.teacher:
            yield "teacher", self.teacher
        yield from ((f"baselines/{name}", stage) for name, stage in self.baselines.items())
        if self.student:
            yield "student", self.student
        if self.quantized:
            yield "quantized", self.quantized

    def stages(self) -> Iterator[tuple[str, Stage]]:
        """Every stage with its name, in the order in which they are made."""
        yield from self.trained()
        yield from ((f"exported/{name}", stage) for name, stage in self.exported.items())
        if self.attack_set:
            yield "attack-set", self.attack_set
        yield from ((f"verified/{name}", stage) for name, stage in self.verified.items())
        if self.analysis:
            yield "analysis", self.analysis


def find_sources(folder: Path) -> Sources:
    """The stages of a run folder, or of the lineage of one verified stage."""
    if (folder / MANIFEST).is_file():
        return _lineage(artifact.read(folder, ("verified",)))
    if not folder.is_dir():
        raise CompressError(f"{folder}: no such folder; give the folder of a run or of a verified stage")
    sources = Sources(
        title=folder.resolve().name,
        teacher=_complete(folder / "teacher", "teacher"),
        student=_complete(folder / "student", "student"),
        quantized=_complete(folder / "quantized", "quantized"),
        attack_set=_complete(folder / "attack-set", "attack-set"),
        analysis=_complete(folder / "analysis", "analyzed"),
        baselines=_each(folder / "baselines", "student", "teacher"),
        exported=_each(folder / "exported", "exported"),
        verified=_each(folder / "verified", "verified"),
    )
    if not any(True for _ in sources.stages()):
        raise CompressError(f"{folder}: holds no complete stage, nothing to report; give the folder of a run")
    return sources


def _complete(path: Path, kind: str) -> "Stage | None":
    return artifact.read(path, (kind,)) if (path / MANIFEST).is_file() else None


def _each(folder: Path, *kinds: str) -> dict[str, Stage]:
    """The complete stages in a folder by name; those made from the float student to compare with come last."""
    if not folder.is_dir():
        return {}
    complete = [
        path for path in folder.iterdir() if (path / MANIFEST).is_file() and path.suffix not in (".partial", ".old")
    ]
    complete.sort(key=lambda path: ("float" in path.name.split("-"), path.name))
    return {path.name: artifact.read(path, kinds) for path in complete}


def _lineage(verified: Stage) -> Sources:
    """The stages behind `verified`, followed back as far as they still lie where they lay and are the same."""
    name = verified.path.resolve().name
    sources = Sources(name, verified={name: verified}, attack_set=_input(verified, "attack-set"))
    exported = _input(verified, "exported")
    if exported is not None:
        sources.exported[exported.path.name] = exported
        sources.student = _input(exported, "model")
        if sources.student is not None and sources.student.kind == "quantized":
            sources.quantized, sources.student = sources.student, _input(sources.student, "student")
    if sources.student is not None:
        sources.teacher = _input(sources.student, "teacher")
    return sources


def _input(stage: Stage, role: str) -> "Stage | None":
    """The input of that role, if a stage of the identity that was read still lies there."""
    if role not in stage.manifest["lineage"] or not (stage.input_path(role) / MANIFEST).is_file():
        return None
    stage_there = artifact.read(stage.input_path(role))
    return stage_there if stage_there.identity == stage.manifest["plan"]["inputs"].get(role) else None


Figure = dict[str, Any]


@dataclass(frozen=True)
class ReplayedSet:
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


def read_attack_set(stage: "Stage | None") -> "ReplayedSet | None":
    """The arrays and names of an attack-set stage."""
    if stage is None:
        return None
    described = json.loads(stage.file("attack-set.json").read_text(encoding="utf-8"))
    with np.load(stage.file("attack-set.npz")) as arrays:
        right = arrays["clean_logits"].argmax(2) == arrays["labels"]
        return ReplayedSet(
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


def stage_rows(
    sources: Sources, attack_set: "ReplayedSet | None", statements: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The document's `stages`: baselines without robustness, teacher, student, other baselines, twin, artifacts."""
    rows = [(_rank(name, stage), _trained(name, stage, attack_set)) for name, stage in sources.trained()]
    rows.sort(key=lambda ranked: ranked[0])
    return [*(row for _, row in rows), *_artifacts(sources, attack_set, statements)]


def _rank(name: str, stage: Stage) -> int:
    if name.startswith("baselines/"):
        return 0 if stage.config.get("method") == "normal" else 3
    return {"teacher": 1, "student": 2, "quantized": 4}[name]


def _trained(name: str, stage: Stage, attack_set: "ReplayedSet | None") -> dict[str, Any]:
    """The row of a network: one PGD attack on the test split, and what the attack set did to it."""
    test = stage.metrics.get("test")
    worst = attack_set.worst(stage.identity) if attack_set else None
    how = [f"PGD-{test['steps']} on {test['n']} test images"] if test else []
    if attack_set and worst:
        how.append(f"worst of {len(attack_set.attacks)} attacks with gradients on {attack_set.images} test images")
    # What kind of network it is: `wrn-10-4, pgd-at`; for the twin how it was quantized
    keys = ("mode",) if name == "quantized" else ("model", "method")
    parts = [str(stage.config[key]) for key in keys if key in stage.config]
    detail = ", ".join([*parts, *(["baseline"] if name.startswith("baselines/") else [])])
    entry = stage.manifest["payload"].get("weights.safetensors")
    weights = entry["bytes"] if entry else None
    return {
        "label": "quantized twin" if name == "quantized" else name.removeprefix("baselines/"),
        "detail": detail,
        "parameters": stage.metrics.get("parameters"),
        "bytes": weights,
        "clean": figure(round(test["clean"] * test["n"]), test["n"]) if test else None,
        "pgd": figure(round(test["robust"] * test["n"]), test["n"]) if test else None,
        "pgd_steps": test["steps"] if test else None,
        "worst": worst[1] if worst else None,
        "bound": True,  # nothing without gradients ran on a network
        "how": "; ".join(how) or "not measured",
    }


def _artifacts(
    sources: Sources, attack_set: "ReplayedSet | None", statements: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """A row for each verified artifact, then one for each exported file that was not verified."""
    exported = {stage.identity: stage for stage in sources.exported.values()}
    seen = set()
    for label, predicate in statements.items():
        identity = predicate["artifact"]["identity"]
        seen.add(identity)
        parameters = exported[identity].metrics.get("parameters") if identity in exported else None
        figures, attacks = predicate["figures"], len(predicate["attacks"])
        bound = figures["robust"] is None
        covered = "protocol not covered" if bound else "protocol covered"
        yield {
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
    for name, stage in sources.exported.items():
        if stage.identity not in seen:
            worst = attack_set.worst(stage.identity) if attack_set else None
            how = "not verified"
            if attack_set and worst:
                how += f"; the attack set replayed on it, {len(attack_set.attacks)} attacks on "
                how += f"{attack_set.images} test images"
            yield {
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
