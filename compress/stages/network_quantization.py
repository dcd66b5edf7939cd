"""A network quantized: calibrated, layers left in floating point where asked, fine-tuned through its quantizers."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from compress import names, training
from compress.attacks import losses as attack_losses
from compress.attacks.pgd import accuracy, batch_random_start, on_test_split, pgd, robust_accuracy
from compress.config import QuantizeConfig
from compress.data.dataset import Dataset
from compress.data.listing import counted
from compress.data.split import Split, to_float
from compress.folders import load, load_data
from compress.methods import registry
from compress.networks import network_files
from compress.networks.base import Classifier, count_parameters
from compress.networks.foreign_network import refuse_scripted
from compress.numerics.seeds import generator
from compress.quantization import int8, sites
from compress.quantization.graph_network import GraphNetwork
from compress.quantization.ranges import Ranges
from compress.stages import sensitivity
from compress.stages.network_training import (
    checks_on_test,
    load_guide,
    measurement_on_test,
)
from compress.stages.onnx_students import describe_student
from compress.stages.quantize import fine_tuning_method
from compress.stages.sensitivity import CalibratedNetwork, RobustJudge, Sensitivity, fall_back
from compress.stages.taken_features import refuse_without_features
from compress.zoo.starting import starting_network
from edge.core import artifact, errors
from edge.core.artifact import Stage, Work
from edge.core.errors import CompressError
from edge.core.progress import say
from edge.runtimes.runner import MODEL

#: Operations that stay in floating point, as many are named in a line; metrics hold all.
MOST_NAMED = 8


def quantize_student(config: QuantizeConfig, stages: Mapping[str, Stage], file: "Path | None", work: Work) -> None:
    """The student among `stages`, or of an ONNX `file`, quantized and written into `work`.

    Its teachers among `stages` are asked where it is fine-tuned.
    """
    dataset = load_data(config.data, *stages.values())
    student, architecture, start = _opened(stages.get("student"), file, dataset)
    where = file or stages["student"].path
    refuse_scripted(student, where)
    student.requires_grad_(True).to(training.device())
    how = Ranges(config.ranges, config.percentile, config.weight_ranges, config.runtime)
    student, layout = int8.quantize_network(student, _calibration_images(student, dataset, config), how)
    subject = CalibratedNetwork(student, layout, config.runtime)
    in_float = _float_operations(subject, where)
    chosen, fallback = _float_layers(subject, dataset, config, work)
    layout = subject.leave_float(chosen)
    described = {key: layout[key] for key in ("ranges", "runtime", "float_layers")}
    described |= {"int8_layers": len(subject.layers) - len(layout["float_layers"]), "float_operations": in_float}
    if config.mode == "qat":
        _fine_tune(student, architecture["model"], stages, dataset, config, work)
    else:
        work.metrics = _measure(student, dataset, config)
    work.metrics = {**start, **described, **fallback, **work.metrics}
    name = f"quantized {architecture['model']}"
    work.metrics |= checks_on_test(student, dataset, config, work.metrics["test"], name)
    int8.check_ranges(student)
    network_files.write_network(work, architecture, student)
    int8.write_layout(work, layout)


def _float_operations(subject: CalibratedNetwork, where: Path) -> list[str]:
    """What no quantizer can stand at, said; CompressError where that is all there is."""
    in_float = sites.float_operations(subject.model)
    listed = ", ".join(in_float[:MOST_NAMED]) + (", …" if len(in_float) > MOST_NAMED else "")
    if not subject.layers:
        raise CompressError(
            f"{where}: has nothing that is quantized here, which 2-D convolutions, linear layers and matrix "
            f"products of tensors are{f' ({listed} stay in floating point)' if listed else ''}; export it as it is, or "
            f"write it with them"
        )
    if in_float:
        say(
            f"{counted(len(subject.layers), 'layer')} quantized, products of two tensors among them; no quantizer "
            f"reaches {counted(len(in_float), 'operation')} of that kind: {listed}"
        )
    return in_float


def _opened(
    student: "Stage | None", file: "Path | None", dataset: Dataset
) -> tuple[Classifier, dict[str, Any], dict[str, Any]]:
    """The float network, its description, and what its stage's manifest says of how it began.

    Of an ONNX file, whether it was given, adopted or imported as a teacher, the network that its graph is.
    """
    if student is not None:
        described = None if student.kind == "exported" else network_files.read_architecture(student.path)
        if described is not None and described["model"] != network_files.ONNX:
            return load(student), described, {}
        file = student.file(MODEL)
    assert file is not None
    architecture = describe_student(file, dataset)
    network, start = starting_network(architecture, 0)
    return network.eval(), architecture, start


def _float_layers(
    subject: CalibratedNetwork, dataset: Dataset, config: QuantizeConfig, work: Work
) -> tuple[Sequence[str], dict[str, Any]]:
    """Which layers stay in floating point, and what was measured for that."""
    for name in config.float_layers:
        errors.known_name("layer", name, tuple(subject.layers))
    if not config.sensitivity and config.max_robust_drop is None:
        return config.float_layers, {}
    subject.model.eval()
    judge = RobustJudge(dataset, config, next(subject.model.parameters()).device)

    def measured() -> Sensitivity:
        costs = sensitivity.measure_sensitivity(subject, judge, config.float_layers)
        text = json.dumps({**judge.described, "runtime": config.runtime, **costs.as_dict()}, indent=2) + "\n"
        artifact.write_atomic(work.add_record(sensitivity.RECORD), text)
        return costs

    known = measured() if config.sensitivity else None
    if config.max_robust_drop is None:
        return config.float_layers, {}
    chosen, fallback = fall_back(
        subject, judge, config.max_robust_drop, config.float_layers, lambda: known if known is not None else measured()
    )
    return chosen, {"fallback": fallback}


def _calibration_images(student: Classifier, dataset: Dataset, config: QuantizeConfig) -> list[torch.Tensor]:
    """Training images, clean and attacked on the float student: both kinds pass the quantizers later."""
    split = Split.of(dataset, "train", next(student.parameters()).device)
    order = torch.randperm(len(split.labels), generator=generator(config.seed, "calibrate"))
    chosen = order[: config.calibration_images].to(split.labels.device)
    eps = config.threat.radius
    batches = []
    for index, part in enumerate(chosen.split(config.batch_size)):
        x, y = to_float(split.images[part]), split.labels[part]
        start = batch_random_start(x, eps, generator(config.seed, "calibrate", index))
        steps = config.validate_steps
        loss = attack_losses.cross_entropy(y)
        batches += [x, pgd(student, x, loss, start=start, eps=eps, step_size=2.5 * eps / steps, steps=steps)]
    return batches


def _fine_tune(
    student: GraphNetwork,
    name: str,
    stages: Mapping[str, Stage],
    dataset: Dataset,
    config: QuantizeConfig,
    work: Work,
) -> None:
    """Train through the quantizers; ranges that are learned are among the weights meanwhile."""
    where = next(student.parameters()).device
    teacher, clean_teacher = (
        None if network is None else training.Guide(network.to(where))
        for network in (load_guide("teacher", stages, dataset), load_guide("clean_teacher", stages, dataset))
    )
    method, options = fine_tuning_method(config, stages.get("student"))
    refuse_without_features(method, teacher, stages)
    learned = _learned(student) if config.ranges == "learned" else []
    split = Split.of(dataset, "train", where)
    torch.manual_seed(config.seed)  # what an objective or dropout draws depends on nothing before
    objective = registry.build_objective(
        method, options, student, teacher, split.clean(config.batch_size), images=len(split.labels)
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
        label=f"quantized {name} by {names.written(method)}, QAT",
        measure=measurement_on_test(student, dataset, config),
        clean_teacher=clean_teacher,
    )
    for quantizer in learned:
        quantizer.settle()
    work.metrics = {"method": names.written(method), **fitted, "parameters": count_parameters(student)}


def _learned(student: GraphNetwork) -> "list[int8.Quantizer]":
    """The quantizers that are on, learning their ranges from now on, but for that of the image."""
    exact = sites.image_sites(student)
    learning = [quantizer for name, quantizer in int8.quantizers(student) if quantizer.is_enabled and name not in exact]
    for quantizer in learning:
        quantizer.learn()
    return learning


def _measure(student: Classifier, dataset: Dataset, config: QuantizeConfig) -> dict[str, Any]:
    """The manifest's metrics of a network that was only calibrated."""
    eps, size = config.threat.radius, config.batch_size
    validation = Split.of(dataset, "val", next(student.parameters()).device)
    robust = robust_accuracy(student, validation, size, eps=eps, steps=config.validate_steps, seed=config.seed)
    return {
        "parameters": count_parameters(student),
        "epochs": 0,
        "best_epoch": 0,
        "validation": {
            "n": len(validation.labels),
            "clean": accuracy(student, validation, size),
            "robust": robust,
        },
        "test": on_test_split(
            student, dataset, eps=config.threat.eps, steps=config.test_steps, batch_size=config.batch_size
        ),
    }
