"""What the teacher and the student stage share: build, fit, measure, write."""

from collections.abc import Mapping
from pathlib import Path

import torch

from compress import fit, names, precision, ranks
from compress.artifact import Stage, Work
from compress.attacks.accuracy import on_test_split
from compress.config import QuantizeConfig, StudentConfig, TeacherConfig
from compress.data import Dataset
from compress.data.split import Split
from compress.errors import CompressError
from compress.losses import methods
from compress.losses.objective import Objective
from compress.models import Classifier, folder
from compress.models.base import parameters
from compress.models.sharded import sharded
from compress.stages import lineage, load, load_data, plan_of


def train(
    kind: str,
    config: "TeacherConfig | StudentConfig",
    inputs: Mapping[str, Stage],
    out: "Path | str",
    *,
    replace: bool = False,
) -> Stage:
    """A stage of that kind, trained by `config.method`, the teacher taken from `inputs` where there is one."""

    def make(work: Work) -> None:
        dataset = load_data(config.data, *inputs.values())
        where = fit.device()
        teacher = fit.Guide(sharded(load(inputs["teacher"]).to(where))) if "teacher" in inputs else None
        if config.method in names.READ_FEATURES and teacher is not None and not teacher.has_features:
            raise CompressError(
                f"{inputs['teacher'].path}: gives nothing but logits, method {config.method} aligns features; "
                f"choose another --method, e.g. rslad"
            )
        architecture = folder.describe(config.model, dataset.images.shape[1:], dataset.classes)
        torch.manual_seed(config.seed)
        student = folder.build(architecture).to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
        train_split = Split.of(dataset, "train", where)
        clean = (x for x, _ in train_split.batches(config.batch_size))
        objective = methods.build(config.method, config.options, student, teacher, clean).to(where)
        label = f"{kind} {config.model} by {config.method}"
        work.metrics = finish(student, objective, teacher, dataset, config, work, label)
        folder.write(work, architecture, student)

    return ranks.build(
        out,
        plan_of(kind, config, inputs),
        make,
        lineage=lineage(config, inputs),
        keep=fit.KEEP,
        replace=replace,
    )


def finish(
    student: Classifier,
    objective: Objective,
    teacher: "Classifier | None",
    dataset: Dataset,
    config: "TeacherConfig | StudentConfig | QuantizeConfig",
    work: Work,
    label: str,
) -> dict[str, object]:
    """Fit the student and measure it: the manifest's metrics."""
    eps = config.threat.radius

    def measure() -> dict[str, object]:
        with precision.full():
            return on_test_split(sharded(student), dataset, config, eps=config.threat.eps, radius=eps)

    found = fit.fit(
        student,
        objective,
        teacher,
        dataset,
        config,
        eps=eps,
        seed=config.seed,
        work=work,
        label=label,
        measure=measure,
    )
    return {"parameters": parameters(student), **found}
