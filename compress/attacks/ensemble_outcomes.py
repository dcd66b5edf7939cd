"""What an ensemble finds out about every image, in memory and on disk, and the figures that follow from it.

The state is a fold of files, one an (attack, batch), each whole or absent, so a killed evaluation continues where its
last whole file ends, and every image, broken or not, is in one of them or is the clean one.
"""

import fcntl
import functools
import io
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from compress.attacks.judge import REASONS
from edge.core import artifact
from edge.core.errors import CompressError
from edge.core.proportions import clopper_pearson

PLAN = "ensemble.json"
CLEAN = "clean.npz"


@dataclass(frozen=True)
class CleanPass:
    """The clean pass over N images."""

    predictions: np.ndarray  # int64 (N,)
    margins: np.ndarray  # float32 (N,)
    classes: np.ndarray  # int64 (): K
    probabilities: np.ndarray  # bool (): every row is a distribution


@dataclass(frozen=True)
class BatchOutcome:
    """What one attack came to on one batch of B images; of the candidates only those that are kept."""

    index: np.ndarray  # int64 (B,): which images
    broke: np.ndarray  # bool (B,)
    reasons: np.ndarray  # int64 (4,): inadmissible candidates, see `judge.REASONS`
    kept: np.ndarray  # int64 (k,): images whose adversarial image this one replaces
    images: np.ndarray  # float32 (k,C,H,W)
    margins: np.ndarray  # float32 (k,)
    unsure: np.ndarray  # int64 (u,): images to attack again on the network under test itself
    seconds: np.ndarray  # float64 ()


class Standings:
    """The fold: which images stand, and the strongest adversarial image of each."""

    def __init__(self, adversarial: np.ndarray, right: np.ndarray, margins: np.ndarray, attacks: int) -> None:
        self.adversarial, self.right, self.margins = adversarial, right, margins
        self.broken_by = np.full(len(right), -1, np.int16)
        self.tried, self.broken = np.zeros((2, attacks, len(right)), bool)
        self.unsure = np.zeros(len(right), bool)  # in the attack that goes on
        self.reasons = np.zeros((attacks, len(REASONS)), np.int64)
        self.seconds = np.zeros(attacks)  # of batches attacked at once the longest

    @property
    def standing(self) -> np.ndarray:
        """Bool (N,): right and not broken so far."""
        return self.right & (self.broken_by < 0)

    def stronger(self, index: np.ndarray, broke: np.ndarray, admissible: np.ndarray, margins: np.ndarray) -> np.ndarray:
        """Bool (B,): candidates to keep in place of the board's: the first that breaks; until then, larger margins."""
        larger = admissible & (margins > self.margins[index])
        return (self.broken_by[index] < 0) & (broke | larger)

    def add(self, attack: int, outcome: BatchOutcome) -> None:
        self.unsure[outcome.index] = False
        self.unsure[outcome.unsure] = True
        self.tried[attack, outcome.index] = ~self.unsure[outcome.index]
        self.broken[attack, outcome.index] = outcome.broke
        first = outcome.index[outcome.broke & (self.broken_by[outcome.index] < 0)]
        self.broken_by[first] = attack
        self.adversarial[outcome.kept], self.margins[outcome.kept] = outcome.images, outcome.margins
        self.reasons[attack] += outcome.reasons


class StateFolder:
    """The folder of one evaluation, locked while open: `with Store(folder, plan) as store`. No folder: nothing is kept.

    `plan` is everything that decides the result; a folder of another plan is refused.
    """

    def __init__(self, folder: "Path | None", plan: Mapping[str, Any]) -> None:
        self.folder, self.plan, self.handle = folder, json.loads(artifact.canonical(plan)), -1

    def __enter__(self) -> "StateFolder":
        if self.folder is None:
            return self
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as fault:
            raise CompressError(f"{self.folder}: cannot be created ({fault.strerror}); choose another folder") from None
        self.handle = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._claim(self.folder)
        except BlockingIOError:
            os.close(self.handle)
            raise CompressError(
                f"{self.folder}: another process attacks with this state; wait for it or stop it"
            ) from None
        except CompressError:
            os.close(self.handle)
            raise
        return self

    def __exit__(
        self, kind: "type[BaseException] | None", fault: "BaseException | None", trace: "TracebackType | None"
    ) -> None:
        if self.folder is not None:
            os.close(self.handle)

    def read_clean(self) -> "CleanPass | None":
        arrays = self._read(CLEAN, CleanPass)
        return None if arrays is None else CleanPass(**arrays)

    def write_clean(self, clean: CleanPass) -> None:
        self._write(CLEAN, vars(clean))

    def read(self, attack: int, batch: int, index: np.ndarray) -> "BatchOutcome | None":
        """The saved outcome of that attack and batch, which must be about the images `index`; None if there is none."""
        name = _name(attack, batch)
        arrays = self._read(name, BatchOutcome)
        if arrays is None:
            return None
        outcome = BatchOutcome(**arrays)
        if not np.array_equal(outcome.index, index):
            raise CompressError(
                f"{self.folder}: {name} is about other images than its turn; delete the folder and run again"
            )
        return outcome

    def write(self, attack: int, batch: int, outcome: BatchOutcome) -> None:
        self._write(_name(attack, batch), vars(outcome))

    def _claim(self, folder: Path) -> None:
        """Write the plan into a new folder, compare with that of an old one."""
        path = folder / PLAN
        if path.exists():
            try:
                old = json.loads(path.read_text(encoding="utf-8"))
            except (ValueError, UnicodeDecodeError):
                raise CompressError(f"{path}: not readable; delete the folder and run again") from None
            if why := artifact.difference(old, self.plan):
                raise CompressError(
                    f"{folder}: state of another evaluation ({why}); repeat that one or choose another folder"
                )
            return
        if any(entry.name != PLAN + ".tmp" for entry in folder.iterdir()):
            raise CompressError(f"{folder}: holds files that are no attack state; choose another folder or empty it")
        artifact.write_atomic(path, json.dumps(self.plan, indent=2, ensure_ascii=False) + "\n")

    def _read(self, name: str, kind: "type[CleanPass] | type[BatchOutcome]") -> "dict[str, np.ndarray] | None":
        """The arrays of a file, every field of `kind`; None where there is no such file."""
        if self.folder is None or not (self.folder / name).exists():
            return None
        try:
            with open(self.folder / name, "rb") as handle, np.load(handle, allow_pickle=False) as file:
                return {field.name: file[field.name] for field in fields(kind)}
        except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile):
            raise CompressError(f"{self.folder / name}: damaged; delete this file and run again") from None

    def _write(self, name: str, arrays: Mapping[str, Any]) -> None:
        if self.folder is None:
            return
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        artifact.write_atomic(self.folder / name, buffer.getvalue())


def _name(attack: int, batch: int) -> str:
    return f"attack-{attack:02d}-{batch:05d}.npz"


# ----------------------------------------------------------------------------------------------- figures


@dataclass(frozen=True)
class AttackColumn:
    """One attack's part; counts are of images."""

    name: str
    parameters: Mapping[str, Any]
    attacked: int
    broke: int  # of those attacked
    first: int  # broken by no attack before it
    standing: int  # right and unbroken after this attack and those before it, inconclusive images included
    robust_accuracy: float  # standing over all images: an upper bound
    seconds: float
    inadmissible: int  # candidates that do not count
    reasons: Mapping[str, int]  # and why


@dataclass(frozen=True)
class RobustCount:
    """Of `n` images: classified right, surely standing after every attack, undecided because the budget was over."""

    n: int
    clean: int
    robust: int
    inconclusive: int

    @property
    def bounds(self) -> tuple[float, float]:
        """Robust accuracy if every undecided image fell, and if none did."""
        return self.robust / self.n, (self.robust + self.inconclusive) / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval after Clopper & Pearson; of bounds, from below the lower to above the upper."""
        return clopper_pearson(self.robust, self.n)[0], clopper_pearson(self.robust + self.inconclusive, self.n)[1]

    def as_dict(self) -> dict[str, Any]:
        low, high = self.bounds
        return {
            "n": self.n,
            "clean": self.clean / self.n,
            "robust": low if not self.inconclusive else None,
            "robust_bounds": [low, high],
            "interval": list(self.interval),
            "inconclusive": self.inconclusive,
        }


@dataclass(frozen=True)
class EnsembleResult:
    """Of N images and A attacks."""

    norm: str
    eps: float
    seed: int
    classes: int
    labels: np.ndarray  # int64 (N,)
    predictions: np.ndarray  # int64 (N,), of the clean images
    right: np.ndarray  # bool (N,): clean images classified right
    broken_by: np.ndarray  # int16 (N,): the first attack that broke it, −1 for none
    tried: np.ndarray  # bool (A,N): the attack ran on the image
    broken: np.ndarray  # bool (A,N): and broke it
    inconclusive: np.ndarray  # bool (N,): standing, but the budget was over before every attack had its turn
    adversarial: np.ndarray  # float32 (N,C,H,W): what broke it, or the strongest candidate, or the clean image
    margins: np.ndarray  # float32 (N,): of these, largest wrong logit minus the true one
    precision: str  # of the search: "float32" or "bfloat16"
    columns: tuple[AttackColumn, ...]
    notes: tuple[str, ...]

    @property
    def robust(self) -> np.ndarray:
        """Bool (N,): right, and every attack had its turn and failed."""
        return self.right & (self.broken_by < 0) & ~self.inconclusive

    @functools.cached_property
    def total(self) -> RobustCount:
        return self._count(np.ones(len(self.labels), bool))

    @property
    def robust_accuracy(self) -> "float | None":
        """Worst case over all attacks; None while images are inconclusive, `total.bounds` then is what is known."""
        return None if self.total.inconclusive else self.total.bounds[0]

    @functools.cached_property
    def by_class(self) -> dict[int, RobustCount]:
        """Every class that has images."""
        return {int(k): self._count(self.labels == k) for k in np.unique(self.labels)}

    @property
    def worst_class(self) -> int:
        """The class with the lowest robust accuracy (its upper bound), of equals the first."""
        return min(self.by_class, key=lambda k: self.by_class[k].bounds[1])

    def as_dict(self) -> dict[str, Any]:
        """Everything but the arrays, for JSON."""
        return {
            "threat": {"norm": self.norm, "eps": self.eps},
            "seed": self.seed,
            "precision": self.precision,
            **self.total.as_dict(),
            "attacks": [{**vars(column), "reasons": dict(column.reasons)} for column in self.columns],
            "worst_class": self.worst_class,
            "by_class": {str(k): count.as_dict() for k, count in self.by_class.items()},
            "notes": list(self.notes),
        }

    def _count(self, chosen: np.ndarray) -> RobustCount:
        parts = (chosen, self.right & chosen, self.robust & chosen, self.inconclusive & chosen)
        return RobustCount(*(int(part.sum()) for part in parts))
