"""What every attack of the ensemble takes and gives back."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from torch import Tensor

#: images (B,C,H,W) in [0, 1] → logits (B,K), differentiable
Model = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Task:
    """One batch to attack: images `x` (B,C,H,W) in [0, 1] with labels `y` (B,) int64, at most `eps` away in `norm`."""

    model: Model
    x: Tensor
    y: Tensor
    ids: np.ndarray  # (B,) int64: each image's own number, which names its random stream
    eps: float
    norm: str  # "linf" or "l2"
    seed: int

    def of(self, index: Tensor) -> "Task":
        """The same task for the images at `index` (M,) int64 alone."""
        return replace(self, x=self.x[index], y=self.y[index], ids=self.ids[index.cpu().numpy()])


class Attack(Protocol):
    """A frozen dataclass whose fields are the hyperparameters. It leaves no trace on the model."""

    @property
    def name(self) -> str: ...

    def parameters(self) -> dict[str, Any]:
        """What a report lists."""
        ...

    def run(self, task: Task) -> Tensor:
        """Each image's strongest candidate (B,C,H,W), inside the ball and [0, 1], in the dtype of `task.x`.

        What the model gets wrong without any attack comes back as it is.
        """
        ...
