"""Where training stands, on disk: everything that the rest of the run depends on, in one file, replaced as a whole."""

import io
import json
import platform
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from compress.config import Training
from compress.networks import network_files
from compress.networks.base import Classifier
from compress.numerics import ranks
from edge.core import artifact, errors
from edge.core.artifact import Work
from edge.core.errors import CompressError

CHECKPOINT = "checkpoint.pt"
METRICS = "metrics.jsonl"
#: What a killed attempt leaves for the next one; with `Training.keep_epochs` the files of its epochs too.
KEEP = (CHECKPOINT, METRICS)


@dataclass
class TrainingState:
    """Where training stands after step `step` of epoch `epoch`, both counted from 0."""

    epoch: int = 0
    step: int = 0
    #: sums over the epoch's steps so far of each part of the loss, and the seconds they took
    totals: dict[str, Tensor] = field(default_factory=dict)
    epoch_seconds: float = 0.0
    best_epoch: int = 0
    best_score: float = -1.0
    best: dict[str, Tensor] = field(default_factory=dict)
    best_validation: dict[str, float] = field(default_factory=dict)
    last_validation: dict[str, float] = field(default_factory=dict)
    #: which validation images stood in the best epoch, (N,), of a method that attacks
    best_stands: "Tensor | None" = None
    #: {"epoch", "robust", "best"} once single-step training has overfitted catastrophically; it ends there
    collapse: dict[str, float] = field(default_factory=dict)
    #: epochs in a row that lie below the best one, by `watch.fallen`
    below: int = 0
    #: seconds of training so far, of all attempts, and those of one validation
    spent: float = 0.0
    validation_seconds: float = 0.0
    #: decided once, at the beginning
    arithmetic: dict[str, str] = field(default_factory=dict)
    #: what the bits depend on beside the plan, and what of it changed on the way: "2 → 1" by name
    conditions: dict[str, str] = field(default_factory=dict)
    changed: dict[str, str] = field(default_factory=dict)


class Part(Protocol):
    """Whatever has a state."""

    def state_dict(self) -> Any: ...
    def load_state_dict(self, state: Any) -> Any: ...


def conditions(where: torch.device) -> dict[str, str]:
    """What decides the last bits of a sum: versions, threads, device, the instructions of the processor."""
    return {
        **artifact.versions(),
        "python": platform.python_version(),
        "threads": str(torch.get_num_threads()),
        "ranks": str(ranks.world()),
        "device": torch.cuda.get_device_name(where) if where.type == "cuda" else where.type,
        "processor": torch.backends.cpu.get_cpu_capability(),
    }


def save(work: Work, parts: dict[str, Part], state: TrainingState) -> None:
    """The checkpoint: the state of every part by name, and `state`."""
    content = {name: part.state_dict() for name, part in parts.items()}
    buffer = io.BytesIO()
    torch.save({**content, "state": vars(state)}, buffer)
    artifact.write_atomic(work.file(CHECKPOINT), buffer.getvalue())


def resume(work: Work, parts: dict[str, Part], where: torch.device) -> TrainingState:
    """The state that a checkpoint holds, every part brought to it; a fresh one where there is no checkpoint."""
    path = work.file(CHECKPOINT)
    now = conditions(where)
    saved = ranks.broadcast(path.read_bytes() if ranks.rank() == 0 and path.exists() else None)
    if saved is None:
        return TrainingState(conditions=now)
    try:
        content = torch.load(io.BytesIO(saved), weights_only=True, map_location=where)
        for name, part in parts.items():
            part.load_state_dict(content[name])
        state = TrainingState(**content["state"])
    except Exception as fault:  # whatever a damaged file raises, or one of another version of a method
        said = errors.first_line(fault)
        raise CompressError(f"{path}: unreadable checkpoint ({said}); delete it and run again") from None
    names = sorted({*now, *state.conditions})
    changed = {
        name: f"{state.conditions.get(name)} → {now.get(name)}"
        for name in names
        if state.conditions.get(name) != now.get(name)
    }
    state.conditions, state.changed = now, {**state.changed, **changed}
    return state


def epoch_files(epochs: int) -> list[str]:
    """The files that the weights of so many epochs are kept in, from 1 on."""
    return [f"epoch-{epoch:04d}.safetensors" for epoch in range(1, epochs + 1)]


def keep_epoch(work: Work, epoch: int, student: Classifier) -> None:
    """The weights after that epoch, from 1, as a stage's folder holds them; before the checkpoint of the epoch."""
    path = work.file(epoch_files(epoch)[-1])
    beside = path.with_name(path.name + ".tmp")
    network_files.write_weights(beside, student.state_dict())
    beside.replace(path)


def kept(config: Training) -> tuple[str, ...]:
    """What a killed attempt leaves for the next one, by name."""
    return (*KEEP, *epoch_files(config.epochs if config.keep_epochs else 0))


def rows(work: Work) -> list[dict[str, Any]]:
    """The metrics so far, a row an epoch."""
    path = work.file(METRICS)
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def write_row(work: Work, row: dict[str, Any]) -> None:
    """One more row, before the checkpoint of its epoch; a kill in between repeats the epoch and its row."""
    kept = [*(old for old in rows(work) if old["epoch"] < row["epoch"]), row]
    artifact.write_atomic(work.file(METRICS), "".join(json.dumps(line) + "\n" for line in kept))
