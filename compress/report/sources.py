"""The stages that a report is about: those of a run folder, or those behind one verified stage."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edge.core import artifact
from edge.core.artifact import MANIFEST, Stage
from edge.core.errors import CompressError


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


def find(folder: Path) -> Sources:
    """The stages of a run folder, or of the lineage of one verified stage."""
    if (folder / MANIFEST).is_file():
        return _lineage(artifact.read(folder, ("verified",)))
    if not folder.is_dir():
        raise CompressError(f"{folder}: no such folder; give the folder of a run or of a verified stage")
    found = _run(folder)
    if not any(True for _ in found.stages()):
        raise CompressError(f"{folder}: holds no complete stage, nothing to report; give the folder of a run")
    return found


def _run(folder: Path) -> Sources:
    return Sources(
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
    found = Sources(name, verified={name: verified}, attack_set=_input(verified, "attack-set"))
    exported = _input(verified, "exported")
    if exported is not None:
        found.exported[exported.path.name] = exported
        found.student = _input(exported, "model")
        if found.student is not None and found.student.kind == "quantized":
            found.quantized, found.student = found.student, _input(found.student, "student")
    if found.student is not None:
        found.teacher = _input(found.student, "teacher")
    return found


def _input(stage: Stage, role: str) -> "Stage | None":
    """The input of that role, if a stage of the identity that was read still lies there."""
    if role not in stage.manifest["lineage"] or not (stage.input_path(role) / MANIFEST).is_file():
        return None
    found = artifact.read(stage.input_path(role))
    return found if found.identity == stage.manifest["plan"]["inputs"].get(role) else None
