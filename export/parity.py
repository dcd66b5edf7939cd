"""Does the exported file say what the torch model says? On real images, at several batch sizes."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from compress.data.split import to_float
from compress.models import Classifier
from edge import open_runner

BATCH_SIZES = (1, 64)


@dataclass(frozen=True)
class Parity:
    """Largest difference of logits and share of equal predictions, over all batch sizes; true when both suffice."""

    passed: bool
    n: int
    batch_sizes: tuple[int, ...]
    max_abs: float
    scale: float  # largest logit of the torch model
    argmax_agreement: float

    def __bool__(self) -> bool:
        return self.passed

    def as_metrics(self) -> dict[str, Any]:
        return asdict(self)


def compare(
    model: Classifier, file: Path, images: np.ndarray, *, min_agreement: float, tolerance: "float | None"
) -> Parity:
    """uint8 `images` (N,C,H,W) through both; `tolerance` bounds max_abs relative to the largest logit, if given."""
    with torch.no_grad():
        want = np.concatenate([model(to_float(part)).numpy() for part in torch.from_numpy(images).split(256)])
    max_abs, agreement = 0.0, 1.0
    for size in BATCH_SIZES:
        with open_runner(file, batch_size=size) as runner:
            got = runner.infer(images)
        max_abs = max(max_abs, float(np.abs(got - want).max()))
        agreement = min(agreement, float((got.argmax(1) == want.argmax(1)).mean()))
    scale = float(np.abs(want).max())
    close = tolerance is None or max_abs <= tolerance * max(scale, 1.0)
    return Parity(close and agreement >= min_agreement, len(images), BATCH_SIZES, max_abs, scale, agreement)
