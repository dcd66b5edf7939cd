"""Student and quantized stages of digits, untrained: statistics of real images, logits that lie apart."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from compress import data, networks
from compress.config import QuantizeConfig, StudentConfig, TeacherConfig, parse
from compress.data.split import to_float
from compress.folders import lineage, plan_of
from compress.networks import network_files
from compress.networks.base import Classifier
from compress.quantization import int8
from edge.core import artifact
from edge.core.artifact import Stage, Work


def images(n: int = 128, split: str = "train") -> Tensor:
    return to_float(torch.from_numpy(data.load_dataset("digits").part(split)[0][:n]))


def network(name: str) -> Classifier:
    torch.manual_seed(0)
    return settled(networks.build_network(name, channels=1, classes=10, size=(8, 8)), images())


def settled(model: Classifier, x: Tensor) -> Classifier:
    """BatchNorm's statistics are those of x, layer scales let blocks through, the head's outputs differ."""
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 0.5
    with torch.no_grad():
        for _ in range(3):
            model.train()(x)
        for name, weight in model.named_parameters():
            if name.endswith("gamma"):
                weight.fill_(0.5)
        last = [layer for layer in model.modules() if isinstance(layer, nn.Linear)][-1]
        last.weight *= 10
        last.bias.copy_(torch.linspace(-0.5, 0.5, len(last.bias)))
    return model.eval().requires_grad_(False)


def student(
    where: Path,
    name: str = "resnet8",
    change: "Callable[[Classifier], object]" = lambda model: None,
    kind: str = "student",
) -> Stage:
    """A stage of that network; `change` is done to it first. A `teacher` may be `factory:module:function`."""
    model = network(name)
    change(model)
    config = parse(
        TeacherConfig if kind == "teacher" else StudentConfig, {"data": "digits", "model": "resnet8"}, "test"
    )
    architecture = network_files.describe_network(name, (1, 8, 8), data.load_dataset("digits").classes)
    return artifact.build(
        where, plan_of(kind, config, {}), lambda work: network_files.write_network(work, architecture, model)
    )


def quantized(
    where: Path, of: Stage, *, runtime: str = "onnx", mode: str = "qat", float_layers: Sequence[str] = ()
) -> Stage:
    """The INT8 twin of a student, calibrated on real images."""
    config = parse(QuantizeConfig, {"data": "digits", "mode": mode, "runtime": runtime}, "test")
    architecture = network_files.read_architecture(of.path)
    model = network_files.load_network(architecture, of.path)

    def make(work: Work) -> None:
        twin, layout = int8.quantize_network(model, [images()])
        layout = int8.leave_float(twin, layout, float_layers)
        network_files.write_network(work, architecture, twin)
        int8.write_layout(work, {**layout, "runtime": runtime})

    inputs = {"student": of}
    return artifact.build(where, plan_of("quantized", config, inputs), make, lineage=lineage(config, inputs))
