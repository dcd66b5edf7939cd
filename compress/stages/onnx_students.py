"""An ONNX file as the start of a stage: read as adoption reads it, of a stage's folder as it lies there."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compress.config import Adopt
from compress.data.dataset import Dataset
from compress.networks import network_files
from edge.core import artifact
from edge.core.progress import say
from export.targets.onnx.adopted_graph import graph_to_ship
from export.targets.onnx.foreign_file import read_foreign


def describe_student(file: Path, dataset: Dataset, features: "Mapping[str, Any] | None" = None) -> dict[str, Any]:
    """The description of the network in an ONNX file (`network_files`), which must fit the dataset.

    What adoption with its defaults puts in front or tells of a file, as that another normalization is better, holds
    here too; a file in a stage's folder went through it already.
    """
    shape, classes = dataset.images.shape[1:], dataset.classes
    if (file.parent / artifact.MANIFEST).is_file():
        return network_files.describe_graph(file, file.read_bytes(), shape, classes, features)
    graph = graph_to_ship(Adopt(), read_foreign(file), dataset)
    for note in graph.notes:
        say(f"{file.name}: {note}")
    return network_files.describe_graph(file, graph.content, shape, classes, features)
