"""Which models an analysis is about: from stage folders and run folders to networks, one after the other."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file

from compress.folders import TORCH_STAGES, load
from compress.networks.base import Classifier
from compress.networks.network_files import WEIGHTS
from edge.core import artifact
from edge.core.artifact import MANIFEST, Stage
from edge.core.errors import CompressError

EPOCHS = "epoch-*.safetensors"
NO_FEATURES = "gives nothing but logits, so there are no features to measure; leave this model out"


@dataclass(frozen=True)
class Subject:
    """One model: a stage's own weights, or the checkpoint in `file`."""

    name: str
    stage: Stage
    file: "str | None" = None

    @property
    def epoch(self) -> "int | None":
        return _epoch(self.file) if self.file else None

    def load(self) -> Classifier:
        model = load(self.stage)
        if self.file:
            model.load_state_dict(load_file(self.stage.file(self.file)), strict=True)
        return model


def stages(folders: "Sequence[Path | str]") -> list[Stage]:
    """The models' stages: of a run folder its teacher, students and twin. One that is there twice counts once."""
    found: dict[str, Stage] = {}
    for folder in folders:
        for path in _in_run(Path(folder)) or [Path(folder)]:
            stage = artifact.read(path, TORCH_STAGES)
            found.setdefault(stage.identity, stage)
    return list(found.values())


def _in_run(folder: Path) -> list[Path]:
    """The complete stages that hold networks in the folder of a run, in the order in which they are made."""
    if (folder / MANIFEST).is_file():
        return []
    baselines = sorted(path for path in folder.glob("baselines/*") if path.suffix not in (".partial", ".old"))
    places = [folder / "teacher", *baselines, folder / "student", folder / "quantized"]
    return [path for path in places if (path / MANIFEST).is_file()]


def subjects(found: Sequence[Stage], *, every_epoch: bool) -> list[Subject]:
    """A model for each stage, with `every_epoch` also for each of its checkpoints whose weights differ."""
    if not every_epoch:
        return [Subject(name, stage) for name, stage in zip(names(found), found, strict=True)]
    return [
        subject
        for name, stage in zip(names(found), found, strict=True)
        for subject in (*_checkpoints(name, stage), Subject(name, stage))
    ]


def checkpoints(stage: Stage) -> dict[str, str]:
    """The files of a stage's checkpoints with their sha256, in order of epochs."""
    records = stage.manifest["records"]
    return {name: records[name]["sha256"] for name in sorted(records) if Path(name).match(EPOCHS)}


def _checkpoints(name: str, stage: Stage) -> list[Subject]:
    kept = checkpoints(stage)
    if not kept:
        raise CompressError(
            f"{stage.path}: keeps no checkpoints; train it with keep_epochs, or leave it or --every-epoch out"
        )
    shipped = stage.manifest["payload"][WEIGHTS]["sha256"]  # the epoch that was selected counts once
    return [Subject(f"{name}@{_epoch(file)}", stage, file) for file, sha in kept.items() if sha != shipped]


def _epoch(file: str) -> int:
    """7 of `epoch-0007.safetensors`."""
    return int(Path(file).stem.partition("-")[2])


def names(found: Sequence[Stage]) -> list[str]:
    """The shortest end of each stage's path that tells it from the others: `student`, `first/student`."""
    parts = [stage.path.resolve().parts for stage in found]
    return ["/".join(_shortest(part, [other for other in parts if other != part])) for part in parts]


def _shortest(part: "tuple[str, ...]", others: "list[tuple[str, ...]]") -> "tuple[str, ...]":
    lengths = range(1, len(part) + 1)
    return next((part[-k:] for k in lengths if all(other[-k:] != part[-k:] for other in others)), part)
