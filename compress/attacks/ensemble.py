"""Several attacks on one model, image by image the worst of them, each on what still stands (Croce & Hein 2020b).

Every success is judged on its own (`compress.attacks.judge`); an image counts as robust only when every attack had its
turn and failed.
"""

import functools
import hashlib
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compress.attacks import inside, judge, losses
from compress.attacks.contract import EnsembleAttack, Model, Task, logits_of
from compress.attacks.ensemble_outcomes import (
    AttackColumn,
    BatchOutcome,
    CleanPass,
    EnsembleResult,
    Standings,
    StateFolder,
)
from compress.attacks.presets import cost, gradient_free, users
from compress.numerics import precision as arithmetic
from compress.numerics import ranks
from edge.core.errors import CompressError
from edge.core.progress import Progress
from edge.runtimes.runner import FULL_SCALE
from edge.validity.logits import distributions

EXAMPLES = 32  # images on which the network searched on must answer as the one under test


def evaluate(
    model: Model,
    images: np.ndarray,
    labels: np.ndarray,
    plan: Sequence[EnsembleAttack],
    *,
    eps: float,
    norm: str = "linf",
    seed: int = 0,
    batch_size: int = 128,
    device: "str | torch.device" = "cpu",
    precision: str = "auto",
    cascade: bool = True,
    ids: "np.ndarray | None" = None,
    identity: str = "",
    state_folder: "Path | str | None" = None,
    budget_s: "float | None" = None,
) -> EnsembleResult:
    """Attack `images` (N,C,H,W), uint8 or float32 in [0, 1], with `labels` (N,) by every attack of `plan`, in order.

    With `cascade` an attack sees only what still stands, without it every image that is right when clean; the worst
    case is the same. `ids` (N,) name the images' random streams, 0…N−1 by default. With a `state_folder` a killed call
    continues when repeated; `identity` then names the model. `budget_s` bounds the seconds of attack, saved ones
    included, to the end of a batch; what it leaves undecided is reported as inconclusive.

    `precision` ("auto", "float32", "bfloat16") is that of the search alone. Verdicts are float32, and an image whose
    margin the rounding may have decided is attacked a second time, on `model` itself. Between the processes of a group
    (`compress.numerics.ranks`) the batches go round; batches, and with them verdicts, are those of one process.
    """
    device = torch.device(device)
    chosen, most_seconds = arithmetic.resolve(precision, device), math.inf if budget_s is None else budget_s
    run = _EnsembleRun(model, images, labels, tuple(plan), eps, norm, seed, batch_size, device, chosen, cascade, ids)
    if state_folder is not None and not identity:
        raise CompressError("identity: none given; a saved state must say which model it is about, give its hash")
    folder = None if state_folder is None or ranks.rank() else Path(state_folder)
    with arithmetic.full(), StateFolder(folder, {} if folder is None else run.describe(identity)) as store:
        clean = ranks.broadcast(store.read_clean())
        if clean is None:
            clean = ranks.broadcast(run.clean_pass())
            store.write_clean(clean)
        standings = run.before_any_attack(clean)
        with Progress("ensemble", 0) as bar:
            for turn in run.turns(standings, bar):
                held = ranks.broadcast([store.read(turn.attack, n, x) for n, x in enumerate(turn.batches, turn.number)])
                missing = [k for k, outcome in enumerate(held) if outcome is None]
                if missing and standings.seconds.sum() >= most_seconds:
                    break
                mine = run.on_batch(turn, standings) if ranks.rank() in missing else None
                fresh = ranks.gather(mine) if missing else held
                either = (new if kept is None else kept for kept, new in zip(held, fresh, strict=False))
                outcomes = [outcome for outcome in either if outcome is not None]
                for k, outcome in enumerate(outcomes):
                    standings.add(turn.attack, outcome)
                    if k in missing:
                        store.write(turn.attack, turn.number + k, outcome)
                # batches attacked at once took as long as the longest of them
                standings.seconds[turn.attack] += max(float(outcome.seconds) for outcome in outcomes)
                run.show(bar, turn, missing, standings, most_s=most_seconds - float(standings.seconds.sum()))
        return run.result(standings, clean)


@dataclass(frozen=True)
class _Turn:
    """Batches that one attack takes at once, up to one a process."""

    attack: int
    number: int  # of the first of them among the attack's
    batches: list[np.ndarray]
    exact: bool  # searched on the model itself


@dataclass(frozen=True)
class _EnsembleRun:
    """The arguments of `evaluate`, checked."""

    model: Model
    images: np.ndarray
    labels: np.ndarray
    plan: tuple[EnsembleAttack, ...]
    eps: float
    norm: str
    seed: int
    batch_size: int
    device: torch.device
    precision: str
    cascade: bool
    given_ids: "np.ndarray | None"

    def __post_init__(self) -> None:
        images, labels, ids = self.images, self.labels, self.ids
        if images.ndim != 4 or not len(images):
            raise CompressError(f"images of shape {images.shape}; (N,C,H,W) with at least one image is needed")
        if images.dtype not in (np.uint8, np.float32):
            raise CompressError(f"images of type {images.dtype}; uint8, or float32 in [0, 1] is needed")
        if images.dtype == np.float32 and not (images.min() >= 0 and images.max() <= 1):
            raise CompressError(
                f"images reach from {images.min():g} to {images.max():g}; bring their pixels into [0, 1]"
            )
        if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
            raise CompressError(
                f"labels {labels.dtype} {labels.shape}; {len(images)} whole numbers are needed, one an image"
            )
        if labels.min() < 0:
            raise CompressError(f"label {labels.min()}: negative; labels are 0…K−1")
        if ids.shape != labels.shape or len(np.unique(ids)) < len(ids):
            raise CompressError(
                f"ids of shape {ids.shape}, {len(np.unique(ids))} different; {len(images)} different are needed"
            )
        if self.norm not in judge.NORMS:
            raise CompressError(f"norm {self.norm!r}: not known; give {' or '.join(judge.NORMS)}")
        if not 0 < self.eps < math.inf or (self.norm == "linf" and self.eps > 1):
            raise CompressError(f"eps {self.eps}: on pixels in [0, 1] it must be above 0 (linf: up to 1), like 8/255")
        if self.batch_size < 1:
            raise CompressError(f"batch_size {self.batch_size}: give at least 1")
        names = [attack.name for attack in self.plan]
        if not names or len(set(names)) < len(names):
            raise CompressError(f"attacks {', '.join(names) or 'none'}: give at least one, and each only once")
        for attack in self.plan:  # before the ones in front of it have taken their time
            if self.norm not in getattr(attack, "norms", judge.NORMS):
                raise CompressError(
                    f"{attack.name} works in {', '.join(attack.norms)}, and the norm is {self.norm}: "  # type: ignore[attr-defined]
                    f"leave {attack.name} out, or set the norm"
                )
        if isinstance(self.model, nn.Module) and self.model.training:
            raise CompressError("the model is in training mode; call .eval() on it first")

    @property
    def ids(self) -> np.ndarray:
        return np.arange(len(self.labels)) if self.given_ids is None else self.given_ids

    def describe(self, identity: str) -> dict[str, Any]:
        """Everything that decides the result, the budget apart."""
        h = hashlib.sha256(f"{self.images.dtype} {self.images.shape}".encode())
        for array in (self.images, self.labels.astype("<i8"), self.ids.astype("<i8")):
            h.update(np.ascontiguousarray(array).data)
        return {
            "format": 1,
            "model": identity,
            "data": h.hexdigest(),
            "norm": self.norm,
            "eps": self.eps,
            "seed": self.seed,
            "attacks": [{"name": attack.name, "parameters": attack.parameters()} for attack in self.plan],
            "cascade": self.cascade,
            "batch_size": self.batch_size,
            "device": self.device.type,
            "precision": self.precision,
        }

    @functools.cached_property
    def inside(self) -> Model:
        """What built-in attacks search on."""
        return inside.search_model(self.model, self.precision, self.tensor(np.arange(min(EXAMPLES, len(self.labels)))))

    def floats(self, index: np.ndarray) -> np.ndarray:
        """float32 images (B,C,H,W) in [0, 1]: k → k/255, as every runner does it."""
        chosen = self.images[index]
        return chosen.astype(np.float32) / FULL_SCALE if chosen.dtype == np.uint8 else chosen

    def tensor(self, index: np.ndarray) -> Tensor:
        return torch.from_numpy(self.floats(index)).to(self.device)

    def batches(self, index: np.ndarray) -> list[np.ndarray]:
        return [index[begin : begin + self.batch_size] for begin in range(0, len(index), self.batch_size)]

    def before_any_attack(self, clean: CleanPass) -> Standings:
        start = np.empty(self.images.shape, np.float32)
        for index in self.batches(np.arange(len(start))):
            start[index] = self.floats(index)
        return Standings(start, clean.predictions == self.labels, clean.margins.copy(), len(self.plan))

    def turns(self, standings: Standings, bar: Progress) -> Iterator[_Turn]:
        """Every attack on all its images, batch by batch, then on the model itself those that rounding left unsure.

        What a turn is about depends on what `standings` learned of the turns before it.
        """
        costs = [cost(attack) for attack in self.plan]
        for attack in range(len(self.plan)):
            targets, number = np.flatnonzero(standings.standing if self.cascade else standings.right), 0
            bar.total = bar.done + sum(costs[attack:]) * len(targets)
            for exact in (False, True):
                batches = self.batches(np.flatnonzero(standings.unsure) if exact else targets)
                bar.total += exact * costs[attack] * sum(map(len, batches))
                for first in range(0, len(batches), ranks.world()):
                    at_once = batches[first : first + ranks.world()]
                    yield _Turn(attack, number, at_once, exact)
                    number += len(at_once)

    def show(self, bar: Progress, turn: _Turn, missing: list[int], standings: Standings, *, most_s: float) -> None:
        """What was saved before takes no passes of this call."""
        attack = self.plan[turn.attack]
        passes = [cost(attack) * len(index) * (k in missing) for k, index in enumerate(turn.batches)]
        bar.total -= cost(attack) * sum(map(len, turn.batches)) - sum(passes)
        bar.step(sum(passes), note=f"{attack.name}  robust ≤ {standings.standing.mean():.1%}", most_s=max(most_s, 0.0))

    def clean_pass(self) -> CleanPass:
        predictions, margins, probabilities = [], [], True
        for index in self.batches(np.arange(len(self.labels))):
            answers, y = judge.checked_logits(self.model, self.tensor(index)), self.labels[index]
            if not np.isfinite(answers).all():
                count = int((~np.isfinite(answers).all(1)).sum())
                raise CompressError(
                    f"the model's logits are not finite on {count} of the first {index[-1] + 1} clean images; "
                    f"mend the model or its input scale"
                )
            if y.max() >= answers.shape[1]:
                raise CompressError(
                    f"label {y.max()}: the model tells {answers.shape[1]} classes apart; labels start at 0"
                )
            predictions.append(answers.argmax(1))
            margins.append(judge.margins(answers, y))
            probabilities = probabilities and bool(distributions(answers).all())
        blind = [attack.name for attack in self.plan if gradient_free(attack.name) or users(attack.name)]
        if len(blind) < len(self.plan) and not judge.differentiable(self.model, self.tensor(np.arange(1))):
            raise CompressError(judge.NO_GRADIENT)
        classes = np.array(answers.shape[1])
        return CleanPass(np.concatenate(predictions), np.concatenate(margins), classes, np.array(probabilities))

    def on_batch(self, turn: _Turn, standings: Standings) -> BatchOutcome:
        """An attack on this process's batch of the turn, its candidates judged by the model under test."""
        began, attack, index = time.monotonic(), self.plan[turn.attack], turn.batches[ranks.rank()]
        x, y = self.floats(index), self.labels[index]
        model = self.model if turn.exact or users(attack.name) else self.inside
        task = Task(
            model,
            torch.from_numpy(x.copy()).to(self.device),
            torch.from_numpy(y.astype(np.int64)).to(self.device),
            self.ids[index],
            self.eps,
            self.norm,
            self.seed,
        )
        candidates = attack.run(task)
        judged = judge.judge_candidates(self.model, candidates, x, y, eps=self.eps, norm=self.norm)
        better = standings.stronger(index, judged.broke, judged.admissible, judged.margins)
        unsure = index[:0]
        if model is not self.model:
            # candidates that fail by less than what they were searched on errs: the most that its margins and the
            # judge's differ by in this batch
            searched = losses.verdict(task.y)(logits_of(model, candidates)).cpu().numpy()
            with np.errstate(invalid="ignore"):  # inf − inf: no number on both sides
                errors = np.abs(searched - judged.margins)
            error = errors[np.isfinite(errors)].max(initial=0)
            unsure = index[np.asarray(~judged.broke & (judged.margins >= -error))]
        return BatchOutcome(
            index,
            judged.broke,
            judged.reasons,
            index[better],
            candidates.detach().float().cpu().numpy()[better],  # NumPy has no bfloat16
            judged.margins[better],
            unsure,
            np.array(time.monotonic() - began),
        )

    def result(self, standings: Standings, clean: CleanPass) -> EnsembleResult:
        return EnsembleResult(
            norm=self.norm,
            eps=self.eps,
            seed=self.seed,
            classes=int(clean.classes),
            labels=self.labels,
            predictions=clean.predictions,
            right=standings.right,
            broken_by=standings.broken_by,
            tried=standings.tried,
            broken=standings.broken,
            inconclusive=standings.standing & ~standings.tried.all(0),
            adversarial=standings.adversarial,
            margins=standings.margins,
            precision=inside.precision_of(self.inside),
            columns=tuple(self.columns(standings)),
            notes=tuple(self.notes(standings, clean)),
        )

    def columns(self, standings: Standings) -> Iterator[AttackColumn]:
        for number, attack in enumerate(self.plan):
            standing = int((standings.right & ~standings.broken[: number + 1].any(0)).sum())
            reasons = dict(zip(judge.REASONS, standings.reasons[number].tolist(), strict=True))
            yield AttackColumn(
                name=attack.name,
                parameters=attack.parameters(),
                attacked=int(standings.tried[number].sum()),
                broke=int(standings.broken[number].sum()),
                first=int((standings.broken_by == number).sum()),
                standing=standing,
                robust_accuracy=standing / len(self.labels),
                seconds=round(float(standings.seconds[number]), 3),
                inadmissible=sum(reasons.values()),
                reasons={why: count for why, count in reasons.items() if count},
            )

    def notes(self, standings: Standings, clean: CleanPass) -> Iterator[str]:
        """One sentence for everything that a reader of the figure should know."""
        for column in self.columns(standings):
            if column.inadmissible:
                why = ", ".join(f"{count} {reason}" for reason, count in column.reasons.items())
                yield f"{column.name}: {column.inadmissible} of {column.attacked} candidates do not count ({why})"
        if undecided := int((standings.standing & ~standings.tried.all(0)).sum()):
            yield f"the time budget ended before every attack had its turn on {undecided} images, which are undecided"
        if numberless := int(np.isposinf(standings.margins[standings.broken_by >= 0]).sum()):
            yield f"on {numberless} adversarial images a logit is not a finite number; they count as misclassified"
        if clean.probabilities:
            yield "the model's outputs look like probabilities; attacks need the logits before the softmax"
