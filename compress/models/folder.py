"""A network's files in a stage folder: `model.json` says what it is, `weights.safetensors` holds it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save

from compress import artifact, models
from compress.models import Classifier

ARCHITECTURE = "model.json"
WEIGHTS = "weights.safetensors"


def describe(name: str, input_shape: tuple[int, ...], classes: Sequence[str]) -> dict[str, Any]:
    """What must be known to build a network for images (C,H,W) of these classes."""
    return {"model": name, "input": list(input_shape), "classes": list(classes)}


def build(architecture: dict[str, Any]) -> Classifier:
    """The network that `describe` described, freshly initialised."""
    return models.build(architecture["model"], channels=architecture["input"][0], classes=len(architecture["classes"]))


def write(work: artifact.Work, architecture: dict[str, Any], model: torch.nn.Module) -> None:
    """Both files, as payload of the stage in the making."""
    artifact.write_atomic(work.add_payload(ARCHITECTURE), json.dumps(architecture, indent=2) + "\n")
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    artifact.write_atomic(work.add_payload(WEIGHTS), save(weights))


def read_architecture(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / ARCHITECTURE).read_text()))


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_file(folder / WEIGHTS))
