"""What a loop looks out for (losses that are not finite, two ways to overfit, memory), and TensorBoard's files."""

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from compress.training import checkpoint
from edge.core.artifact import Work
from edge.core.errors import CheckFailed
from edge.core.progress import say
from edge.core.proportions import mcnemar

#: Robust overfitting is told after so many epochs in a row …
OVERFIT_EPOCHS = 3

#: … that lie so far below the best epoch …
OVERFIT_MARGIN = 0.02

#: … at this level, over all epochs that the best one was chosen from.
OVERFIT_LEVEL = 0.01


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


def collapsed(best: dict[str, float], accuracies: dict[str, float], chance: float) -> bool:
    """Catastrophic overfitting (Wong et al. 2020): robust accuracy below half of the best, clean not below what it was.

    `best` and `accuracies` are of the validation split, "robust" and "clean"; a best that a network could reach by
    naming one class, `chance` and half of it again for luck, is no robustness to lose. Asked where one has `fallen`.
    """
    if not best or best["robust"] < 1.5 * chance:
        return False
    return accuracies["robust"] < best["robust"] / 2 and accuracies["clean"] >= best["clean"]


def fallen(best: Tensor, now: Tensor, epochs: int) -> bool:
    """Whether fewer validation images stand `now` than in the best of so many epochs, (N,) each, and not by chance.

    By more than the margin, and by McNemar's exact test of the same images at a level that is divided by the epochs:
    the best of many is a lucky one. Several such epochs in a row are robust overfitting (Rice et al. 2020).
    """
    lost, gained = int((best & ~now).sum()), int((now & ~best).sum())
    return lost - gained > OVERFIT_MARGIN * len(best) and mcnemar(lost, gained) < OVERFIT_LEVEL / epochs


# -------------------------------------------------------------------------------------------- memory

#: What torch's allocator for the CPU, which has no exception of its own, says.
CPU_SAYS = ("DefaultCPUAllocator", "not enough memory")


def exhausted(fault: RuntimeError) -> bool:
    """Whether it says that memory ran out."""
    return isinstance(fault, torch.OutOfMemoryError) or any(text in str(fault) for text in CPU_SAYS)


def largest(fits: Callable[[int], object], size: int) -> "int | None":
    """The largest half, quarter, … of a batch of `size` that `fits` gets through, down to 2 images."""
    while size >= 4:
        size //= 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        try:
            fits(size)
        except RuntimeError as fault:
            if not exhausted(fault):
                raise
        else:
            return size
    return None


def message(size: int, fitting: "int | None") -> str:
    """One line for the user."""
    if fitting is None:
        return f"batch_size {size}: out of memory, and not even 2 images fit; choose a smaller model"
    return f"batch_size {size}: out of memory; {fitting} images fit, set batch_size {fitting} (--batch-size {fitting})"


# --------------------------------------------------------------------------------------- TensorBoard


class Events:
    """Event files in the folder of the stage in the making, a point a metric and epoch.

    An earlier attempt's file is gone, so the rows it had are written first.
    """

    def __init__(self, work: Work) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.work = work
        self.writer = SummaryWriter(log_dir=str(work.path))
        for row in checkpoint.rows(work):
            self.write(row)

    def write(self, row: dict[str, Any]) -> None:
        """Every figure of one epoch."""
        for name, value in row.items():
            if name != "epoch":
                self.writer.add_scalar(name, value, row["epoch"])
        self.writer.flush()

    def close(self) -> None:
        """The files become records of the stage."""
        self.writer.close()
        for path in sorted(self.work.path.glob("events.out.tfevents.*")):
            self.work.add_record(path.name)


def opened(wanted: bool, work: Work, label: str) -> "Events | None":
    """Where the metrics go as events, if that is wanted and possible."""
    if not wanted:
        return None
    if importlib.util.find_spec("tensorboard") is None:
        say(f"{label}: tensorboard is not installed, no event files; pip install 'robust-compress[tensorboard]'")
        return None
    return Events(work)
