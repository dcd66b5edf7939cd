"""The attack set as `compress attack` wrote it: images, predictions, and the models and attacks they belong to."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.core import artifact
from edge.core.artifact import Stage
from edge.core.errors import CompressError

FORMAT = 2
ARRAYS_FILE, INDEX_FILE = "attack-set.npz", "attack-set.json"
#: `outputs` of an artifact whose gradients were taken before its softmax.
PROBABILITIES = "probabilities"
ARRAYS = ("clean", "labels", "index", "adversarial", "predictions", "broken", "clean_logits")


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
    broken: np.ndarray  # bool (A,M,N), the candidate is admissible and the model misclassifies it
    clean_logits: np.ndarray  # float32 (M,N,K)

    @classmethod
    def read(cls, stage: Stage) -> "AttackSet":
        """Of a stage whose hashes were checked; another format or hash, or logits that are NaN: CompressError."""
        about = about_of(stage)
        arrays = arrays_of(stage, ARRAYS_FILE, ARRAYS, about["arrays"])
        for model, logits in zip(about["models"], arrays["clean_logits"], strict=True):
            refuse_endless(stage, model["label"], logits)
        return cls(stage, about, **arrays)

    @property
    def eps(self) -> Fraction:
        return Fraction(self.about["threat"]["eps"])

    @property
    def student(self) -> "int | None":
        """The place of the float student among the models; None where artifacts were attacked without one."""
        return next((m for m, model in enumerate(self.about["models"]) if model["role"] == "student"), None)

    def place(self, identity: "str | None") -> "int | None":
        """The place of the model that is the stage of this identity; None where it is not in the set."""
        return next((m for m, model in enumerate(self.about["models"]) if model["identity"] == identity), None)

    def labelled(self, label: "str | None") -> "int | None":
        """The place of the model of this label."""
        return next((m for m, model in enumerate(self.about["models"]) if model["label"] == label), None)

    def label(self, place: "int | None") -> "str | None":
        return None if place is None else str(self.about["models"][place]["label"])


def about_of(stage: Stage) -> dict[str, Any]:
    """The set's attack-set.json, once its format was found to be the one that is read here."""
    about = dict(json.loads(stage.file(INDEX_FILE).read_text(encoding="utf-8")))
    if about.get("format") != FORMAT:
        raise CompressError(
            f"{stage.path}: format {about.get('format')}, this version reads format {FORMAT}; run compress attack again"
        )
    return about


def arrays_of(
    stage: Stage, file: str, names: "tuple[str, ...]", hashes: Mapping[str, str]
) -> "dict[str, npt.NDArray[Any]]":
    """The arrays of those names in an npz of the stage, each checked against its sha256."""
    with np.load(stage.file(file), allow_pickle=False) as held:
        missing = [name for name in names if name not in held or name not in hashes]
        if missing:
            raise CompressError(f"{stage.path}: {file} lacks {', '.join(missing)}; run compress attack again")
        arrays = {name: held[name] for name in names}
    for name, array in arrays.items():
        got = array_sha256(array)
        if got != hashes[name]:
            raise CompressError(
                f"{stage.path}: {name} in {file} has sha256 {got:.12}, {INDEX_FILE} says {hashes[name]:.12}; "
                f"run compress attack again"
            )
    return arrays


def refuse_endless(stage: Stage, label: str, logits: "npt.NDArray[Any]") -> None:
    """CompressError where logits (N,K) that a model of the set gave are NaN or infinite: nothing compares with them."""
    finite = np.isfinite(logits).all(1)
    if not finite.all():
        raise CompressError(
            f"{stage.path}: {label} gave NaN or infinity for {int((~finite).sum())} of {len(finite)} images; "
            f"run compress attack again, without it if it still does"
        )


def array_sha256(array: "npt.NDArray[Any]") -> str:
    """sha256 of type, shape and little-endian bytes in C order: the same on every machine."""
    plain = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return artifact.bytes_sha256(f"{plain.dtype.str} {plain.shape}".encode() + plain.tobytes())
