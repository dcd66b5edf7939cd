"""The quantized stage: INT8 ranges found, then fine-tuned through the quantizers with the student's own objective."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from compress import artifact, fit, names
from compress.artifact import Plan, Stage, Work
from compress.attacks import losses as attack_losses
from compress.attacks.accuracy import accuracy, on_test_split, robust_accuracy
from compress.attacks.pgd import pgd, random_start
from compress.config import QuantizeConfig
from compress.data import Dataset
from compress.data.split import Split, to_float
from compress.errors import CompressError
from compress.losses import methods
from compress.models import Classifier, folder, int8
from compress.models.base import parameters
from compress.seeds import generator
from compress.stages import lineage, load, load_data, load_role, numbered, plan_of, read_role
from compress.train import finish


def plan(config: QuantizeConfig, inputs: Mapping[str, Any]) -> Plan:
    """What decides the result."""
    return plan_of("quantized", config, _read(config, inputs))


def run(config: QuantizeConfig, inputs: Mapping[str, Any], out: "Path | str", *, replace: bool = False) -> Stage:
    """Quantize the student in `inputs["student"]` into `out`.

    Fine-tuning needs the teachers of the student's method: `inputs["teacher"]` and `inputs["clean_teacher"]`, by
    default where the student's manifest says they lay.
    """
    stages = _read(config, inputs)

    def make(work: Work) -> None:
        dataset = load_data(config.data, *stages.values())
        where = fit.device()
        student = load(stages["student"]).requires_grad_(True).to(where)
        architecture = folder.read_architecture(stages["student"].path)
        layout = int8.quantize(student, _calibration_images(student, dataset, config))
        if config.mode == "qat":
            _fine_tune(student, stages, dataset, config, work)
        else:
            work.metrics = _measure(student, dataset, config)
        folder.write(work, architecture, student)
        int8.write_layout(work, layout)

    return artifact.build(
        out,
        plan_of("quantized", config, stages),
        make,
        lineage=lineage(config, stages),
        keep=fit.kept(config),
        replace=replace,
    )


def _read(config: QuantizeConfig, inputs: Mapping[str, Any]) -> dict[str, Stage]:
    student = artifact.read(inputs["student"], ("student", "teacher"))
    stages = {"student": student}
    if config.mode == "qat" and "method" not in student.config:
        raise CompressError(f"{student.path}: was imported, so no method to fine-tune it by is known; use --mode ptq")
    if config.mode == "qat":
        method, options = student.config["method"], student.config["options"]
        asked = {
            "teacher": names.needs_teacher(method, options),
            "clean_teacher": names.needs_clean_teacher(method, options),
        }
        for role in (role for role, needed in asked.items() if needed):
            lay = [student.input_path(one) for one in numbered(role, student.manifest["lineage"])]
            stages |= read_role(role, inputs.get(role) or lay, ("teacher", "student"))
    return stages


def _calibration_images(student: Classifier, dataset: Dataset, config: QuantizeConfig) -> list[torch.Tensor]:
    """Training images, clean and attacked on the float student: both kinds pass the quantizers later."""
    split = Split.of(dataset, "train", next(student.parameters()).device)
    order = torch.randperm(len(split.labels), generator=generator(config.seed, "calibrate"))
    chosen = order[: config.calibration_images].to(split.labels.device)
    eps = config.threat.radius
    batches = []
    for index, part in enumerate(chosen.split(config.batch_size)):
        x, y = to_float(split.images[part]), split.labels[part]
        start = random_start(x, eps, generator(config.seed, "calibrate", index))
        steps = config.validate_steps
        loss = attack_losses.cross_entropy(y)
        batches += [x, pgd(student, x, loss, start=start, eps=eps, step_size=2.5 * eps / steps, steps=steps)]
    return batches


def _fine_tune(
    student: Classifier, stages: Mapping[str, Stage], dataset: Dataset, config: QuantizeConfig, work: Work
) -> None:
    """Train through the quantizers by the method and options that the student was trained with."""
    where = next(student.parameters()).device
    teacher, clean_teacher = (
        None if network is None else fit.Guide(network.to(where))
        for network in (load_role("teacher", stages), load_role("clean_teacher", stages))
    )
    method = stages["student"].config
    split = Split.of(dataset, "train", where)
    objective = methods.build(
        method["method"],
        method["options"],
        student,
        teacher,
        split.clean(config.batch_size),
        images=len(split.labels),
    ).to(where)
    label = f"quantized {method['model']}, QAT"
    work.metrics = finish(student, objective, teacher, dataset, config, work, label, clean_teacher=clean_teacher)


def _measure(student: Classifier, dataset: Dataset, config: QuantizeConfig) -> dict[str, Any]:
    """The manifest's metrics of a network that was only calibrated."""
    eps, size = config.threat.radius, config.batch_size
    validation = Split.of(dataset, "val", next(student.parameters()).device)
    robust = robust_accuracy(student, validation, size, eps=eps, steps=config.validate_steps, seed=config.seed)
    return {
        "parameters": parameters(student),
        "epochs": 0,
        "best_epoch": 0,
        "validation": {
            "n": len(validation.labels),
            "clean": accuracy(student, validation, size),
            "robust": robust,
        },
        "test": on_test_split(student, dataset, config, eps=config.threat.eps, radius=eps),
    }
