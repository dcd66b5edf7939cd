"""The checks of an artifact: its logits by its runner, in calls of several sizes."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edge.runtimes.runner import Runner, at_batch_sizes
from edge.validity.logits import logits_checks, rounding_of
from edge.validity.rules import ValidityCheck

COMPANY = 8  # images of a call that shows a runner of single images what company does


def artifact_checks(
    runner: Runner,
    images: "npt.NDArray[np.uint8] | npt.NDArray[np.float32]",
    *,
    precision: "str | None",
    sizes: "Sequence[int]" = (1,),
) -> "list[ValidityCheck]":
    """What needs logits alone, of images (N,C,H,W), asked in calls of the runner's own size and of `sizes` as well.

    Sizes that the file cannot be executed at are left out, which the check says of 1. `precision` as stages call it,
    None where nothing is known.
    """
    rounding = rounding_of(precision, gpu="CPU" not in str(runner.describe().get("provider")))
    together = (COMPANY,) if runner.batch_size == 1 else ()
    with at_batch_sizes(runner, (*sizes, *together)) as at_sizes:
        return logits_checks(runner.infer, images, at_sizes=at_sizes, rounding=rounding)
