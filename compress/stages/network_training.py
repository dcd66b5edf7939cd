"""A network in training, as teachers, students and quantized networks share it: built, fitted, measured, written."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from compress import names, networks, training
from compress.attacks import validity
from compress.attacks.pgd import on_test_split
from compress.config import QuantizeConfig, StudentConfig, TeacherConfig
from compress.data import extra
from compress.data.dataset import Dataset
from compress.data.extra import ExtraImages
from compress.data.split import Split, to_float
from compress.folders import load_data, load_role, numbered
from compress.methods import registry
from compress.networks import network_files
from compress.networks.base import Classifier, count_parameters
from compress.networks.distributed import sharded
from compress.numerics import precision
from compress.stages.onnx_students import describe_student
from compress.stages.taken_features import refuse_without_features, taken_features
from compress.training import passes
from compress.zoo.starting import starting_network
from edge.core.artifact import Stage, Work
from edge.core.errors import CompressError
from edge.core.progress import say
from edge.validity.logits import probabilities_check
from edge.validity.rules import fired_checks

PROBED = 16  # images that a teacher is asked about before it teaches


def train_network(kind: str, config: "TeacherConfig | StudentConfig", stages: Mapping[str, Stage], work: Work) -> None:
    """A network trained by `config.method`, its teachers among `stages` where it has any, written into `work`."""
    dataset = load_data(config.data, *stages.values())
    where = training.device()
    teacher, clean_teacher = (
        None if network is None else training.Guide(sharded(network.to(where)))
        for network in (load_guide("teacher", stages, dataset), load_guide("clean_teacher", stages, dataset))
    )
    refuse_without_features(config.method, teacher, stages)
    added = _extra(config, dataset, teacher is not None)
    named = config.features.model_dump(exclude_none=True) if config.features else None
    file = networks.graph_path(config.model)
    architecture = (
        network_files.describe_network(config.model, dataset.images.shape[1:], dataset.classes, features=named)
        if file is None
        else describe_student(file, dataset, named)
    )
    network, start = starting_network(architecture, config.seed, config.weights, config.key)
    student = network.to(where)
    passes.PLAIN.put(student)
    compared = registry.reads_features(config.method)
    taken = taken_features({"student": student, "teacher": teacher}) if compared or named else {}
    train_split = Split.of(dataset, "train", where)
    objective = registry.build_objective(
        config.method,
        config.options,
        student,
        teacher,
        train_split.clean(config.batch_size),
        images=len(train_split.labels) + (0 if added is None else len(added.images)),
    ).to(where)
    fitted = training.fit(
        student,
        objective,
        teacher,
        dataset,
        config,
        eps=config.threat.radius,
        seed=config.seed,
        work=work,
        label=f"{kind} {config.model} by {names.written(config.method)}",
        measure=measurement_on_test(student, dataset, config),
        clean_teacher=clean_teacher,
        extra=added,
    )
    work.metrics = {"parameters": count_parameters(student), **start, **taken, **fitted}
    work.metrics |= checks_on_test(student, dataset, config, fitted["test"], f"{kind} {config.model}")
    network_files.write_network(work, architecture, student)


def load_guide(role: str, stages: Mapping[str, Stage], dataset: Dataset) -> "Classifier | None":
    """The teacher of that role, None where there is none; one that gives probabilities would teach something else."""
    guide = load_role(role, stages)
    if guide is None:
        return None
    for member in numbered(role, stages):
        if fired := fired_checks(stages[member].metrics):
            say(f"ALARM {stages[member].path}: on this teacher fired {', '.join(fired)}")
    shown = to_float(torch.from_numpy(dataset.part("val")[0][:PROBED]))
    with torch.no_grad():
        check = probabilities_check(guide(shown).float().numpy())
    if check.fired:
        folders = ", ".join(str(stages[member].path) for member in numbered(role, stages))
        raise CompressError(
            f"{folders}: its {check.seen}, and a teacher gives logits; import it again, which takes their logarithm"
        )
    return guide


def _extra(config: "TeacherConfig | StudentConfig", dataset: Dataset, taught: bool) -> "ExtraImages | None":
    """The extra images of a stage that is given some, checked against its dataset."""
    if config.extra is None:
        return None
    images = extra.checked_extra(extra.load_extra(config.extra.path), dataset, config.extra.fraction, config.batch_size)
    if images.labels is None and not taught:
        raise CompressError(
            f"extra {images.name}: holds no labels, and method {names.written(config.method)} has no teacher to give "
            f"some; add an array label, or choose a method with a teacher"
        )
    return images


def measurement_on_test(
    network: Classifier, dataset: Dataset, config: "TeacherConfig | StudentConfig | QuantizeConfig"
) -> "Callable[[], dict[str, object]]":
    """What measures the network as it then is on the test split, in float32."""

    def measure() -> dict[str, object]:
        with precision.full():
            return on_test_split(
                sharded(network), dataset, eps=config.threat.eps, steps=config.test_steps, batch_size=config.batch_size
            )

    return measure


def checks_on_test(
    network: Classifier,
    dataset: Dataset,
    config: "TeacherConfig | StudentConfig | QuantizeConfig",
    measured: Mapping[str, Any],
    of: str,
) -> dict[str, Any]:
    """The validity checks of a network as it was `measured` on the test split; what fired is told."""
    images, labels = dataset.part("test")
    return validity.measured_checks(
        network,
        images,
        labels,
        measured,
        eps=config.threat.radius,
        of=of,
        batch_size=config.batch_size,
        device=next(network.parameters()).device,
    )
