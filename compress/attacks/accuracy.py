"""How many images a model keeps right: clean, and under one projected gradient attack."""

from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from compress.attacks import losses
from compress.attacks.contract import Model
from compress.attacks.pgd import batch_random_start, step_size, strongest_iterate
from compress.data.dataset import Dataset
from compress.data.split import Split
from compress.networks.base import Classifier
from compress.numerics.seeds import generator


def accuracy(model: Model, split: Split, batch_size: int) -> float:
    """Share of images classified right."""
    with torch.no_grad():
        right = sum(int((model(x).argmax(1) == y).sum()) for x, y in split.batches(batch_size))
    return right / len(split.labels)


def robust_accuracy(model: Model, split: Split, batch_size: int, *, eps: float, steps: int, seed: int) -> float:
    """Share of images still right at every iterate of one PGD run on cross-entropy, step 2.5 ε / steps."""
    standing = 0
    for index, (x, y) in enumerate(split.batches(batch_size)):
        start = batch_random_start(x, eps, generator(seed, "evaluate", index))
        with torch.no_grad():
            right = losses.verdict(y)(model(x)) < 0
        x, y, start = x[right], y[right], start[right]  # what is wrong already need not be attacked
        if len(y):
            _, worst = largest_margin(model, x, y, start=start, eps=eps, steps=steps)
            standing += int((worst < 0).sum())
    return standing / len(split.labels)


def largest_margin(
    model: Model, x: Tensor, y: Tensor, *, start: Tensor, eps: float, steps: int
) -> tuple[Tensor, Tensor]:
    """PGD on cross-entropy, step 2.5 ε / steps: of all iterates the one of largest `losses.verdict`, and that value.

    (B,C,H,W), (B,): > 0 where the prediction is wrong, else < 0.
    """
    return strongest_iterate(
        model,
        x,
        losses.cross_entropy(y),
        losses.verdict(y),
        start=start,
        eps=eps,
        step_size=step_size(None, eps, steps),
        steps=steps,
    )


def on_test_split(model: Classifier, data: Dataset, *, eps: str, steps: int, batch_size: int) -> dict[str, Any]:
    """Clean and PGD accuracy on the test split, for the manifest; nothing is chosen by it. `eps` as written, 8/255."""
    split = Split.of(data, "test", next(model.parameters()).device)
    return {
        "n": len(split.labels),
        "clean": accuracy(model, split, batch_size),
        "robust": robust_accuracy(model, split, batch_size, eps=float(Fraction(eps)), steps=steps, seed=0),
        "attack": "pgd",
        "steps": steps,
        "eps": eps,
    }
