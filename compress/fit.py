"""The one training loop: attack, update, validate, checkpoint, select.

Every random draw comes from (seed, epoch, step), so a run that is killed and resumed at its last checkpoint ends in
the same weights, bit for bit, on one machine with the same versions and thread count.
"""

import copy
import io
import json
import math
import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from compress import artifact
from compress.artifact import Work
from compress.attacks.accuracy import accuracy, robust_accuracy
from compress.config import Training
from compress.data import Dataset, augment
from compress.data.split import Split, to_float
from compress.errors import CheckFailed, CompressError
from compress.losses.objective import Batch, Objective
from compress.models import Classifier
from compress.seeds import generator
from edge.progress import Progress, say

CHECKPOINT = "checkpoint.pt"
METRICS = "metrics.jsonl"
#: What a killed attempt leaves for the next one.
KEEP = (CHECKPOINT, METRICS)


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass
class State:
    """Where training stands after an epoch."""

    epoch: int = 0
    best_epoch: int = 0
    best_score: float = -1.0
    best: dict[str, Tensor] = field(default_factory=dict)
    best_validation: dict[str, float] = field(default_factory=dict)
    last_validation: dict[str, float] = field(default_factory=dict)
    #: {"epoch", "robust", "best"} once single-step training has overfitted catastrophically; it ends there
    collapse: dict[str, float] = field(default_factory=dict)


def fit(
    student: Classifier,
    objective: Objective,
    teacher: "Classifier | None",
    data: Dataset,
    config: Training,
    *,
    eps: float,
    seed: int,
    work: Work,
    label: str,
) -> dict[str, Any]:
    """Train `student` in place and leave it at the epoch that the validation split chose; the manifest's metrics.

    Selection is by PGD accuracy on the validation split, by clean accuracy for methods that do not attack.
    """
    where = next(student.parameters()).device
    train, validation = Split.of(data, "train", where), Split.of(data, "val", where)
    if config.batch_size > len(train.labels):
        raise CompressError(
            f"batch_size {config.batch_size} is larger than the {len(train.labels)} training images of {data.name}; "
            f"give at most {len(train.labels)}"
        )
    weights = [*student.parameters(), *objective.parameters()]
    optimizer = torch.optim.SGD(
        weights, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay, nesterov=config.momentum > 0
    )
    vary = augment.named(config.augment, data.name)
    chance = float(validation.labels.bincount().max()) / len(validation.labels)
    state = _resume(work, student, objective, optimizer)
    with Progress(label, config.epochs) as bar:
        bar.step(state.epoch)
        while state.epoch < config.epochs and not state.collapse:
            began = time.monotonic()
            losses = _epoch(
                student, objective, teacher, train, optimizer, config, vary, eps=eps, seed=seed, epoch=state.epoch
            )
            student.eval()
            found = {"clean": accuracy(student, validation, config.batch_size)}
            if objective.attacks:  # of the others nothing is chosen by it, so it is not measured
                found["robust"] = robust_accuracy(
                    student, validation, config.batch_size, eps=eps, steps=config.validate_steps, seed=seed
                )
            state.epoch += 1
            if objective.single_step(config.attack) and collapsed(state.best_validation, found, chance):
                state.collapse = {"epoch": state.epoch, "robust": found["robust"], "best": state.best_score}
            state.last_validation = found
            score = found["robust" if objective.attacks else "clean"]
            if score >= state.best_score:  # of equals the later, which has seen more
                state.best_epoch, state.best_score, state.best_validation = state.epoch, score, found
                state.best = copy.deepcopy(student.state_dict())
            row = {"epoch": state.epoch, **losses, "lr": optimizer.param_groups[0]["lr"]}
            row |= {f"validation_{name}": value for name, value in found.items()}
            _save(work, student, objective, optimizer, state, row | {"seconds": round(time.monotonic() - began, 2)})
            bar.step(1, note="validation " + " ".join(f"{name} {value:.1%}" for name, value in found.items()))
    if state.collapse:
        say(
            f"{label}: catastrophic overfitting in epoch {state.epoch}, stopped (validation robust "
            f"{state.last_validation['robust']:.1%}, best {state.best_score:.1%}); kept epoch {state.best_epoch}"
        )
    student.load_state_dict(state.best)
    student.eval()
    work.add_record(METRICS)
    return {
        "epochs": state.epoch,
        "best_epoch": state.best_epoch,
        "validation": {"n": len(validation.labels), **state.best_validation},
        "validation_last": {"n": len(validation.labels), **state.last_validation},
        **({"catastrophic_overfitting": state.collapse} if state.collapse else {}),
        "device": where.type,
        "threads": torch.get_num_threads(),
    }


def _epoch(
    student: Classifier,
    objective: Objective,
    teacher: "Classifier | None",
    train: Split,
    optimizer: torch.optim.Optimizer,
    config: Training,
    vary: "augment.Augmentation | None",
    *,
    eps: float,
    seed: int,
    epoch: int,
) -> dict[str, float]:
    """One pass over the training images in a fresh order, varied anew; the mean of each loss part."""
    steps = len(train.labels) // config.batch_size
    order = torch.randperm(len(train.labels), generator=generator(seed, "order", epoch)).to(train.labels.device)
    totals: dict[str, Tensor] = {}
    for step in range(steps):
        chosen = order[step * config.batch_size : (step + 1) * config.batch_size]
        x, y = to_float(train.images[chosen]), train.labels[chosen]
        if vary is not None:
            x = vary(x, generator(seed, "augment", epoch, step))
        batch, x_adv = Batch(x, y, _teach(teacher, x)), x
        if objective.attacks:
            student.eval()
            start = generator(seed, "start", epoch, step)
            x_adv = objective.adversarial(student, batch, config.attack, eps=eps, draw=start)
        student.train()
        parts = objective.parts(student, batch, x_adv)
        loss = torch.stack(list(parts.values())).sum()
        if not torch.isfinite(loss):
            names = ", ".join(name for name, part in parts.items() if not torch.isfinite(part)) or "the sum"
            raise CheckFailed(f"epoch {epoch + 1}, step {step + 1}: {names} is not finite; lower lr (now {config.lr})")
        for group in optimizer.param_groups:
            group["lr"] = config.lr * rate(epoch * steps + step, config.epochs * steps, config.warmup)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for name, part in parts.items():
            totals[name] = totals.get(name, torch.zeros((), device=x.device)) + part.detach()
    return {name: float(total) / steps for name, total in totals.items()}


def _teach(teacher: "Classifier | None", x: Tensor) -> Any:
    if teacher is None:
        return None
    with torch.no_grad():
        return teacher.forward_features(x)


def collapsed(best: dict[str, float], found: dict[str, float], chance: float) -> bool:
    """Catastrophic overfitting (Wong et al. 2020): robust accuracy below half of the best, clean not below what it was.

    `best` and `found` hold validation accuracies "robust" and "clean"; a best that a network could reach by naming one
    class, `chance` and half of it again for luck, is no robustness to lose.
    """
    if not best or best["robust"] < 1.5 * chance:
        return False
    return found["robust"] < best["robust"] / 2 and found["clean"] >= best["clean"]


def rate(step: int, total: int, warmup: float) -> float:
    """Share of the peak learning rate: linear up over `warmup` of all steps, then half a cosine down to 0."""
    rise = warmup * total
    if step < rise:
        return (step + 1) / (rise + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1.0, total - rise)))


def _save(
    work: Work,
    student: Classifier,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    state: State,
    row: dict[str, Any],
) -> None:
    """The metrics up to this epoch, then the checkpoint; a kill in between repeats the epoch."""
    metrics = work.file(METRICS)
    rows = [line for line in _rows(metrics) if json.loads(line)["epoch"] < state.epoch]
    artifact.write_atomic(metrics, "\n".join([*rows, json.dumps(row)]) + "\n")
    content = {
        "student": student.state_dict(),
        "objective": objective.state_dict(),
        "optimizer": optimizer.state_dict(),
        "state": vars(state),
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    artifact.write_atomic(work.file(CHECKPOINT), buffer.getvalue())


def _rows(metrics: Any) -> list[str]:
    return metrics.read_text().splitlines() if metrics.exists() else []


def _resume(work: Work, student: Classifier, objective: Objective, optimizer: torch.optim.Optimizer) -> State:
    path = work.file(CHECKPOINT)
    if not path.exists():
        return State()
    where = next(student.parameters()).device
    try:
        content = torch.load(path, weights_only=True, map_location=where)
    except Exception as fault:  # whatever a damaged file raises
        raise CompressError(f"{path}: unreadable checkpoint ({fault}); delete it and run again") from None
    student.load_state_dict(content["student"])
    objective.load_state_dict(content["objective"])
    optimizer.load_state_dict(content["optimizer"])
    return State(**content["state"])
