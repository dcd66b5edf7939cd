"""What an ensemble found out about every image, and the figures that follow from it."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge.core.proportions import clopper_pearson


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
