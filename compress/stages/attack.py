"""The attack-set stage: images made with gradients against student, twins and artifacts, replayed on all of them.

The parts of the protocol that need gradients: white box on the twin and on the float student, margin and temperature
losses, hybrid BPDA (forward on the artifact, backward through its twin) and differential images. What needs only
the artifact (replay, Square, a decision-based attack) is `edge.verify.verify`'s.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as replace_fields
from pathlib import Path

import numpy as np

from compress.config import AttackConfig
from compress.data.dataset import Dataset, first_of_each_class
from compress.folders import lineage, plan_of
from edge.core import artifact
from edge.core.artifact import Plan, Stage
from edge.core.errors import CompressError
from edge.core.progress import say
from edge.validity.logits import chance_count

UNLIKE = 0.05  # of the images: so much another share of the largest class is told


@dataclass(frozen=True)
class AttackInputs:
    """Folders of what is attacked, and the board that executes the artifacts where that is not this machine.

    `student` is any float network's: a student's, or a teacher's in its place, imported or trained here. `host` is
    USER@HOST, `python` its Python where that is another than its own.
    """

    student: "Path | str | None" = None
    quantized: "Path | str | None" = None
    exported: "Sequence[Path | str]" = ()
    host: "str | None" = None
    python: "str | None" = None


def plan(config: AttackConfig, inputs: AttackInputs) -> Plan:
    """What decides the result."""
    return _plan(config, _read(inputs), inputs)


def run(config: AttackConfig, inputs: AttackInputs, out: "Path | str", *, replace: bool = False) -> Stage:
    """Attack the student, its quantized twin and every artifact, as far as given, into `out`.

    An artifact of that chain has the torch model that it was made from as its twin. Any other, and every one where no
    student is given, has a twin made from its own graph where its operators allow. So has a float network that is an
    imported ONNX graph: attacks ascend on its graph in torch.
    """
    from compress.stages.attack_set_making import make_attack_set

    stages = _read(inputs)
    make = functools.partial(make_attack_set, config, inputs, stages)
    return artifact.build(out, _plan(config, stages, inputs), make, lineage=lineage(config, stages), replace=replace)


def _plan(config: AttackConfig, stages: Mapping[str, Stage], inputs: AttackInputs) -> Plan:
    """Images made with forward passes on a board are another set than those made without it."""
    planned, host = plan_of("attack-set", config, stages), inputs.host
    return planned if host is None else replace_fields(planned, config={**planned.config, "host": host})


def chosen_test_images(dataset: Dataset, count: "int | None") -> np.ndarray:
    """Indices of the test images to attack, in dataset order: all, or the first of each class in equal numbers.

    Where that makes the classes' shares others than those of the data, which accuracies then are not of, it is said.
    """
    test = dataset.splits["test"]
    if count is None:
        return test
    if count > len(test):
        raise CompressError(f"images: {count} asked for, the test split of {dataset.name} has {len(test)}")
    chosen = test[first_of_each_class(dataset.labels[test], count)]
    largest, here = (chance_count(dataset.labels[index]) / len(index) for index in (test, chosen))
    if abs(largest - here) > UNLIKE:
        say(
            f"{count} of {len(test)} test images, equally many of each class: the largest class is {here:.1%} of them "
            f"and {largest:.1%} of all, so accuracies are not those of the data"
        )
    return chosen


def _read(inputs: AttackInputs) -> dict[str, Stage]:
    """The stages by role: student, quantized, exported-0, …; each artifact of the student's chain, or adopted."""
    stages: dict[str, Stage] = {}
    if inputs.student:
        stages["student"] = artifact.read(inputs.student, ("student", "teacher"))
    if inputs.quantized:
        quantized = artifact.read(inputs.quantized, ("quantized",))
        if "student" not in stages:
            raise CompressError(f"{quantized.path}: given without its student; name the student's folder first")
        _same(quantized, "student", [stages["student"]])
        stages["quantized"] = quantized
    if not stages and not inputs.exported:
        raise CompressError("nothing to attack: no student, no teacher, no artifact given; name one, or --exported DIR")
    for number, folder in enumerate(inputs.exported):
        exported = artifact.read(folder, ("exported",))
        if "student" in stages and origin_of(exported) is not None:
            _same(exported, "model", [stages[role] for role in ("student", "quantized") if role in stages])
        stages[f"exported-{number}"] = exported
    return stages


def origin_of(exported: Stage) -> "str | None":
    """Identity of the model that an artifact was made from; None of an adopted file."""
    return exported.manifest["plan"]["inputs"].get("model")


def _same(stage: Stage, role: str, origins: list[Stage]) -> None:
    made_from = stage.manifest["plan"]["inputs"][role]
    if made_from not in [origin.identity for origin in origins]:
        folders = " or ".join(str(origin.path) for origin in origins)
        raise CompressError(
            f"{stage.path}: made from another {role} ({made_from:.12}) than {folders}; "
            f"give the folders of one chain (--quantized for an INT8 artifact)"
        )
