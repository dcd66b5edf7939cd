"""One epoch with extra images that a teacher of two networks labels, diagnosed, on all ranks: mixed_step.py FOLDER."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from compress import training
from compress.data.extra import ExtraImages
from compress.methods.objective import Objective, Terms, Views
from compress.methods.scores import divergences, smoothed_cross_entropy
from compress.networks.base import Ensemble
from compress.networks.distributed import sharded
from compress.numerics import ranks
from tests.compress.short_training import fresh, rows, train


class Taught(Objective):
    """Labels and a teacher's scores, on clean images: an attack's signs would make rounding visible."""

    attacks = False

    def terms(self, views: Views) -> Terms:
        return {
            "labels": smoothed_cross_entropy(views.clean.logits, views.y),
            "teacher": divergences(views.taught_clean.logits, views.clean.logits),
        }


def trained(folder: Path) -> dict[str, Any]:
    """The student's weights and its one row of metrics."""
    images = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8), np.uint8)
    extra = ExtraImages("npz:x", images, None, "", fraction=0.4)
    members = Ensemble([fresh(5), fresh(6)]).eval().requires_grad_(False)
    student, teacher = fresh(), training.Guide(sharded(members))
    changes = {"epochs": 1, "diagnose": 2, "batch_size": 21, "keep_epochs": True}
    train(folder, student, objective=Taught(), teacher=teacher, extra=extra, **changes)
    return {"weights": student.state_dict(), "rows": rows(folder) if ranks.rank() == 0 else []}


if __name__ == "__main__":
    torch.set_num_threads(1)
    with ranks.started():
        out = Path(sys.argv[1])
        found = trained(out / str(ranks.rank()))
        everyone = ranks.gather(found["weights"])
        if ranks.rank() == 0:
            apart = [name for name, value in everyone[0].items() if not torch.equal(value, everyone[1][name])]
            files = [sorted(path.name for path in (out / str(rank)).iterdir()) for rank in range(ranks.world())]
            torch.save({**found, "apart": apart, "files": files}, out / "found.pt")
