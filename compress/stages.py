"""From a stage folder to what is in it."""

from collections.abc import Mapping
from pathlib import Path

import torch

from compress import artifact, data, names
from compress.artifact import Plan, Stage
from compress.config import Common
from compress.data import Dataset
from compress.errors import CompressError
from compress.models import Classifier, folder
from compress.models.onnx_classifier import OnnxClassifier
from edge.runner import MODEL

TORCH_STAGES = ("teacher", "student", "quantized")


def load(where: "Path | str | Stage") -> Classifier:
    """The torch module of a teacher, student or quantized stage, in evaluation mode, gradients by weights off.

    float32 NCHW in [0, 1] → logits. A quantized stage gives the fake-quantized twin.
    """
    stage = where if isinstance(where, Stage) else artifact.read(where, TORCH_STAGES)
    architecture = folder.read_architecture(stage.path)
    if architecture["model"] == folder.ONNX:
        return OnnxClassifier(stage.file(MODEL)).eval()
    if stage.kind == "quantized":
        from compress.models import int8

        model, weights = folder.build(architecture), folder.read_weights(stage.path)
        int8.restore(model, int8.read_layout(stage.path), weights, torch.zeros(1, *architecture["input"]))
    else:
        model = folder.load(architecture, stage.path)
    return model.eval().requires_grad_(False)


def plan_of(kind: str, config: Common, inputs: Mapping[str, Stage]) -> Plan:
    """The plan of a stage that reads a dataset: its config, the data, and the identities of the stages it reads."""
    return Plan(
        stage=kind,
        config=config.semantic(),
        seed=config.seed,
        data=data.load(config.data).as_plan(),
        inputs={role: stage.identity for role, stage in inputs.items()},
    )


def lineage(config: Common, stages: Mapping[str, Stage]) -> dict[str, Path]:
    """Where a stage's inputs lie, by role, and where its dataset does if it has a path."""
    path = names.dataset(config.data)[1]
    return {role: stage.path for role, stage in stages.items()} | ({"data": Path(path)} if path else {})


def load_data(name: str, *stages: Stage) -> Dataset:
    """The dataset of that name, once every stage was found to be made from the same images and split."""
    dataset = data.load(name)
    want = dataset.as_plan()
    for stage in stages:
        if "source" in stage.config:  # imported: its weights come from no split of ours
            _fits(stage, dataset)
            continue
        got = stage.data
        for key, what in (("name", "dataset"), ("fingerprint", "images"), ("split", "split")):
            if got[key] != want[key]:
                raise CompressError(
                    f"{stage.path}: made from another {what} ({got[key]:.12}, here {want[key]:.12}); "
                    f"use stages of one dataset and split"
                )
    return dataset


def _fits(teacher: Stage, dataset: Dataset) -> None:
    """Whether an imported network takes these images and tells these classes apart."""
    about = folder.read_architecture(teacher.path)
    known, here = about["classes"], list(dataset.classes)
    if len(known) != len(here):
        raise CompressError(
            f"{teacher.path}: tells {len(known)} classes apart, {dataset.name} has {len(here)}; use the data it is for"
        )
    if known != here and set(known) == set(here):
        raise CompressError(
            f"{teacher.path}: its classes stand in another order ({known[0]}, {known[1]}, …) than those of "
            f"{dataset.name} ({here[0]}, {here[1]}, …); bring the dataset into that order"
        )
    if about["input"] != list(dataset.images.shape[1:]):
        raise CompressError(
            f"{teacher.path}: imported for images {tuple(about['input'])}, {dataset.name} has "
            f"{dataset.images.shape[1:]}; import it again with this data"
        )
