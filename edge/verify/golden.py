"""The golden handful of an attack set: a check of an artifact in seconds, before anything that takes longer.

At most 32 images, of each class a clean one and adversarial ones, with the logits that every model of the set gave them
when the set was made. Whether another machine, runtime or copy computes the same is a matter of one call.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.core.artifact import Stage
from edge.core.errors import CompressError
from edge.runtimes.runner import Runner
from edge.statement.statement import GoldenDifference, GoldenEvidence
from edge.verify.attack_set import about_of, arrays_of, refuse_endless

FILE = "golden.npz"
ARRAYS = ("images", "labels", "index", "attack", "logits")
MOST = 32
CLEAN = -1  # in `attack`: the image is no candidate
#: Of the largest expected logit. Float kernels differ by summation order; at 8 bits a rounding may go the other way.
TOLERANCE = {"float32": 1e-3}
COARSE = 0.05
#: Of a twin's predictions so many may be others: near a boundary, where candidates lie, one rounding turns one.
FEW = 3

EQUAL, NEAR, FAR, DIFFERENT = "equal bits", "within tolerance", "logits differ", "different predictions"


def choose_golden(labels: "npt.NDArray[Any]", broken: "npt.NDArray[np.bool_]") -> "list[tuple[int, int]]":
    """Places (attack, image) of the handful: by class the first clean image, then what breaks most models.

    `labels` (N,), `broken` (A,M,N); attack −1 is the clean image. At most 32, half of them clean.
    """
    classes = np.unique(labels)[: MOST // 2]
    clean = [(CLEAN, int(np.flatnonzero(labels == k)[0])) for k in classes]
    fooled = broken.sum(1)  # (A,N) models that a candidate breaks
    candidates: list[tuple[int, int]] = []
    for turn in range(MOST):
        for k in classes:
            rows, columns = np.nonzero(fooled[:, labels == k])
            members = np.flatnonzero(labels == k)
            order = np.argsort(-fooled[rows, members[columns]], kind="stable")
            if turn < len(order):
                candidates.append((int(rows[order[turn]]), int(members[columns[order[turn]]])))
        if len(candidates) >= MOST - len(clean):
            break
    return [*clean, *candidates[: MOST - len(clean)]]


def check_golden(runner: Runner, stage: Stage, place: "int | None" = None) -> "GoldenEvidence | None":
    """What `runner` says of the handful of an attack-set stage, beside what it said when the set was made.

    `place` is the artifact's among the set's models: where nothing executed it when the set was made, its twin's
    logits are what is expected. By default the place of the runner's very bytes. None where the artifact's bytes are
    not in the set. Equal bits are to be expected at the set's own batch size alone.
    """
    about = about_of(stage)
    of_twin = place is not None and "unexecuted" in about["models"][place]
    if not of_twin:
        place = next((m for m, model in enumerate(about["models"]) if model.get("sha256") == runner.sha256), None)
    if place is None:
        return None
    held = arrays_of(stage, FILE, ARRAYS, about["golden"]["arrays"])
    if held["images"].shape[1:] != runner.input_shape or held["logits"].shape[2] != runner.classes:
        raise CompressError(
            f"{stage.path}: images {held['images'].shape[1:]} of {held['logits'].shape[2]} classes, the artifact takes "
            f"{runner.input_shape} and gives {runner.classes}; use an attack set of this model's data"
        )
    refuse_endless(stage, about["models"][place]["label"], held["logits"][place])
    want, got = held["logits"][place], runner.infer(held["images"])
    scale, gap = float(np.abs(want).max(initial=0)), float(np.abs(want - got).max(initial=0))
    tolerance = TOLERANCE.get(about["models"][place].get("precision"), COARSE)
    names = [attack["name"] for attack in about["attacks"]]
    different = np.flatnonzero(want.argmax(1) != got.argmax(1))
    if (want == got).all():
        verdict = EQUAL
    elif len(different) > (FEW if of_twin else 0):
        verdict = DIFFERENT
    else:
        verdict = NEAR if gap <= tolerance * scale else FAR
    return GoldenEvidence(
        verdict=verdict,
        n=len(want),
        max_abs=gap,
        scale=scale,
        tolerance=tolerance,
        different=[_difference(int(i), held, names, want, got) for i in different],
        batch_size=runner.batch_size,
        expected_at_batch_size=about["golden"]["batch_size"][place],
        expected_from="twin" if of_twin else "artifact",
    )


def golden_line(evidence: GoldenEvidence) -> str:
    """The evidence for a person: `golden check of 20 images: within tolerance (…)`."""
    head = f"golden check of {evidence.n} images: {evidence.verdict}"
    if evidence.different:
        rows = [f"{row.index} ({row.attack}): {row.expected} → {row.got}" for row in evidence.different[:3]]
        more = len(evidence.different) - len(rows)
        return f"{head}, image {'; '.join(rows)}{f'; and {more} more' if more else ''}"
    if evidence.verdict == EQUAL:
        return head
    of = "what its twin gives, nothing executed it then" if evidence.expected_from == "twin" else "what it gave then"
    return f"{head} of {of}, by up to {evidence.max_abs:.3g} of {evidence.scale:.3g}"


def _difference(
    i: int, held: "Mapping[str, npt.NDArray[Any]]", names: list[str], want: np.ndarray, got: np.ndarray
) -> GoldenDifference:
    attack = int(held["attack"][i])
    name = "clean" if attack == CLEAN else names[attack]
    return GoldenDifference(int(held["index"][i]), name, int(want[i].argmax()), int(got[i].argmax()))
