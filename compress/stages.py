"""From a stage folder to what is in it."""

from collections.abc import Mapping
from pathlib import Path

import torch

from compress import artifact, data, names
from compress.artifact import Stage
from compress.config import Common
from compress.data import Dataset
from compress.errors import CompressError
from compress.models import Classifier, folder

TORCH_STAGES = ("teacher", "student", "quantized")


def load(where: "Path | str | Stage") -> Classifier:
    """The torch module of a teacher, student or quantized stage, in evaluation mode, gradients by weights off.

    float32 NCHW in [0, 1] → logits. A quantized stage gives the fake-quantized twin.
    """
    stage = where if isinstance(where, Stage) else artifact.read(where, TORCH_STAGES)
    architecture = folder.read_architecture(stage.path)
    model = folder.build(architecture)
    weights = folder.read_weights(stage.path)
    if stage.kind == "quantized":
        from compress.models import int8

        int8.restore(model, int8.read_layout(stage.path), weights, torch.zeros(1, *architecture["input"]))
    else:
        model.load_state_dict(weights, strict=True)
    return model.eval().requires_grad_(False)


def lineage(config: Common, stages: Mapping[str, Stage]) -> dict[str, Path]:
    """Where a stage's inputs lie, by role, and where its dataset does if it has a path."""
    path = names.dataset(config.data)[1]
    return {role: stage.path for role, stage in stages.items()} | ({"data": Path(path)} if path else {})


def load_data(name: str, *stages: Stage) -> Dataset:
    """The dataset of that name, once every stage was found to be made from the same images and split."""
    dataset = data.load(name)
    want = dataset.as_plan()
    for stage in stages:
        got = stage.data
        for key, what in (("name", "dataset"), ("fingerprint", "images"), ("split", "split")):
            if got[key] != want[key]:
                raise CompressError(
                    f"{stage.path}: made from another {what} ({got[key]:.12}, here {want[key]:.12}); "
                    f"use stages of one dataset and split"
                )
    return dataset
