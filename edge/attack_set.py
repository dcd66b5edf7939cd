"""The attack set as `compress attack` wrote it: images, predictions, and the models and attacks they belong to."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from compress.artifact import Stage
from compress.errors import CompressError

FORMAT = 1
ARRAYS = ("clean", "labels", "index", "adversarial", "predictions", "clean_logits")


@dataclass(frozen=True)
class AttackSet:
    """N images, A attacks with one candidate an image each, M models; K classes."""

    stage: Stage
    about: Mapping[str, Any]  # attack-set.json
    clean: np.ndarray  # uint8 (N,C,H,W)
    labels: np.ndarray  # int64 (N,)
    index: np.ndarray  # int64 (N,), places in the dataset
    adversarial: np.ndarray  # uint8 (A,N,C,H,W)
    predictions: np.ndarray  # int16 (A,M,N), what each model says of each candidate
    clean_logits: np.ndarray  # float32 (M,N,K)

    @classmethod
    def read(cls, stage: Stage) -> "AttackSet":
        """Of a stage whose hashes were checked; another format: CompressError."""
        about = json.loads(stage.file("attack-set.json").read_text(encoding="utf-8"))
        with np.load(stage.file("attack-set.npz"), allow_pickle=False) as arrays:
            missing = [name for name in ARRAYS if name not in arrays]
            if about.get("format") != FORMAT or missing:
                found = f"lacks {', '.join(missing)}" if missing else f"format {about.get('format')}"
                raise CompressError(
                    f"{stage.path}: {found}, this version reads format {FORMAT}; run compress attack again"
                )
            return cls(stage, about, *(arrays[name] for name in ARRAYS))

    @property
    def eps(self) -> Fraction:
        return Fraction(self.about["threat"]["eps"])

    @property
    def student(self) -> int:
        """The place of the float student among the models."""
        return next(m for m, model in enumerate(self.about["models"]) if model["role"] == "student")

    def place(self, identity: str) -> "int | None":
        """The place of the model that is the stage of this identity; None where it is not in the set."""
        return next((m for m, model in enumerate(self.about["models"]) if model["identity"] == identity), None)

    def label(self, place: "int | None") -> "str | None":
        return None if place is None else str(self.about["models"][place]["label"])
