"""What a loop looks out for: losses that are not finite, and the two ways in which robust training overfits."""

import math

import torch
from torch import Tensor

from edge.core.errors import CheckFailed

#: Robust overfitting is told after so many epochs in a row …
OVERFIT_EPOCHS = 3
#: … that lie so far below the best epoch, or a standard error of it where that is more.
OVERFIT_MARGIN = 0.02


class Finite:
    """Whether every part of the loss was finite, kept on the device so that no step waits for the answer."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._first: Tensor | None = None

    def note(self, step: int, parts: dict[str, Tensor], loss: Tensor) -> None:
        """Of each part and of their sum the first step at which it was not finite."""
        values = torch.stack([*parts.values(), loss]).detach()
        if self._first is None:
            self._names = [*parts, "the sum"]
            self._first = torch.full(values.shape, -1, device=values.device)
        self._first = torch.where(~values.isfinite() & (self._first < 0), step, self._first)

    def check(self, epoch: int, lr: float) -> None:
        """CheckFailed that names the earliest step and its parts; waits for the device."""
        first = [] if self._first is None else self._first.tolist()
        steps = [step for step in first if step >= 0]
        if not steps:
            return
        step = min(steps)
        found = [name for name, at in zip(self._names, first, strict=True) if at == step]
        names = ", ".join(found[:-1] or found)  # a part that is not finite makes the sum so
        raise CheckFailed(f"epoch {epoch + 1}, step {step + 1}: {names} is not finite; lower lr (now {lr})")


def collapsed(best: dict[str, float], found: dict[str, float], chance: float) -> bool:
    """Catastrophic overfitting (Wong et al. 2020): robust accuracy below half of the best, clean not below what it was.

    `best` and `found` hold validation accuracies "robust" and "clean"; a best that a network could reach by naming one
    class, `chance` and half of it again for luck, is no robustness to lose.
    """
    if not best or best["robust"] < 1.5 * chance:
        return False
    return found["robust"] < best["robust"] / 2 and found["clean"] >= best["clean"]


def below(robust: float, best: float, images: int) -> bool:
    """Whether a validation accuracy on that many images lies more than the margin below the best one.

    Several such epochs in a row are robust overfitting (Rice et al. 2020).
    """
    return robust < best - max(OVERFIT_MARGIN, math.sqrt(best * (1 - best) / images))
