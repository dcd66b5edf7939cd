"""What the teacher and the student stage share: build, fit, measure, write."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from compress import names, training
from compress.attacks.accuracy import on_test_split
from compress.config import QuantizeConfig, StudentConfig, TeacherConfig
from compress.data import extra
from compress.data.dataset import Dataset
from compress.data.extra import ExtraImages
from compress.data.split import Split
from compress.folders import lineage, load_data, load_role, numbered, plan_of
from compress.methods import registry
from compress.methods.objective import Objective
from compress.networks import network_files
from compress.networks.base import Classifier, count_parameters
from compress.networks.distributed import sharded
from compress.numerics import precision, ranks
from edge.core.artifact import Stage, Work
from edge.core.errors import CompressError


def train(
    kind: str,
    config: "TeacherConfig | StudentConfig",
    inputs: Mapping[str, Stage],
    out: "Path | str",
    *,
    replace: bool = False,
) -> Stage:
    """A stage of that kind, trained by `config.method`, its teachers taken from `inputs` where there are any."""

    def make(work: Work) -> None:
        dataset = load_data(config.data, *inputs.values())
        where = training.device()
        teacher, clean_teacher = (
            None if network is None else training.Guide(sharded(network.to(where)))
            for network in (load_role("teacher", inputs), load_role("clean_teacher", inputs))
        )
        method = names.written(config.method)
        refuse_without_features(config.method, teacher, inputs)
        added = _extra(config, dataset, teacher is not None)
        architecture = network_files.describe_network(config.model, dataset.images.shape[1:], dataset.classes)
        torch.manual_seed(config.seed)
        student = network_files.build_described(architecture).to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
        train_split = Split.of(dataset, "train", where)
        objective = registry.build_objective(
            config.method,
            config.options,
            student,
            teacher,
            train_split.clean(config.batch_size),
            images=len(train_split.labels) + (0 if added is None else len(added.images)),
        ).to(where)
        label = f"{kind} {config.model} by {method}"
        work.metrics = finish(
            student, objective, teacher, dataset, config, work, label, clean_teacher=clean_teacher, added=added
        )
        network_files.write_network(work, architecture, student)

    return ranks.build(
        out,
        plan_of(kind, config, inputs),
        make,
        lineage=lineage(config, inputs),
        keep=training.kept(config),
        replace=replace,
    )


def refuse_without_features(
    method: "str | Sequence[str]", teacher: "Classifier | None", inputs: Mapping[str, Stage]
) -> None:
    """A method that compares features needs a teacher that gives some."""
    if registry.reads_features(method) and teacher is not None and not teacher.has_features:
        folders = ", ".join(str(inputs[role].path) for role in numbered("teacher", inputs))
        raise CompressError(
            f"{folders}: gives nothing but logits, method {names.written(method)} compares features; choose another "
            f"--method, e.g. rslad"
        )


def _extra(config: "TeacherConfig | StudentConfig", dataset: Dataset, taught: bool) -> "ExtraImages | None":
    """The extra images of a stage that is given some, checked against its dataset."""
    if config.extra is None:
        return None
    found = extra.checked_extra(extra.load_extra(config.extra.path), dataset, config.extra.fraction, config.batch_size)
    if found.labels is None and not taught:
        raise CompressError(
            f"extra {found.name}: holds no labels, and method {names.written(config.method)} has no teacher to give "
            f"some; add an array label, or choose a method with a teacher"
        )
    return found


def finish(
    student: Classifier,
    objective: Objective,
    teacher: "Classifier | None",
    dataset: Dataset,
    config: "TeacherConfig | StudentConfig | QuantizeConfig",
    work: Work,
    label: str,
    *,
    clean_teacher: "Classifier | None" = None,
    added: "ExtraImages | None" = None,
) -> dict[str, object]:
    """Fit the student and measure it: the manifest's metrics."""
    eps = config.threat.radius

    def measure() -> dict[str, object]:
        with precision.full():
            return on_test_split(
                sharded(student), dataset, eps=config.threat.eps, steps=config.test_steps, batch_size=config.batch_size
            )

    found = training.fit(
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
        clean_teacher=clean_teacher,
        extra=added,
    )
    return {"parameters": count_parameters(student), **found}
