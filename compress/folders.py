"""From a stage folder to what is in it."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from compress import data, networks
from compress.data import extra, split_name
from edge.core import artifact, targets
from edge.core.artifact import Plan, Stage
from edge.core.errors import CompressError
from edge.core.user_source import UserSource, find_source
from edge.runtimes.runner import MODEL

if TYPE_CHECKING:  # torch enters when a network is loaded, not when one is planned
    from compress.data.dataset import Dataset
    from compress.networks.base import Classifier

TORCH_STAGES = ("teacher", "student", "quantized")

#: One folder, or those of several stages that stand in one role.
Folders: TypeAlias = "Path | str | Sequence[Path | str]"


class ReadsData(Protocol):
    """The configuration of a stage that reads a dataset."""

    @property
    def data(self) -> str:
        """KIND or KIND:PATH."""

    @property
    def seed(self) -> int: ...

    def semantic(self) -> dict[str, Any]:
        """What decides the result."""


def load(where: "Path | str | Stage", runtime: str = targets.DIALECT) -> "Classifier":
    """The torch module of a teacher, student or quantized stage, in evaluation mode, gradients by weights off.

    float32 NCHW in [0, 1] → logits. A quantized stage gives the fake-quantized twin of that
    INT8 dialect (`targets.dialects()`).
    """
    from compress.networks import network_files
    from compress.networks.graph.onnx_twin import OnnxClassifier

    stage = where if isinstance(where, Stage) else artifact.read(where, TORCH_STAGES)
    architecture = network_files.read_architecture(stage.path)
    if architecture["model"] == network_files.ONNX:
        probabilities = network_files.gives_probabilities(architecture)
        return OnnxClassifier(stage.file(MODEL), probabilities=probabilities).eval()
    if stage.kind == "quantized":
        from compress.quantization import grids, int8

        model, weights = network_files.build_described(architecture), network_files.read_weights(stage.path)
        layout = grids.dialect(runtime).layout(int8.read_layout(stage.path))
        model = int8.restore(model, tuple(architecture["input"]), layout, weights, stage.path)
    else:
        model = network_files.load_network(architecture, stage.path)
    return model.eval().requires_grad_(False)


def plan_of(kind: str, config: ReadsData, inputs: Mapping[str, Stage]) -> Plan:
    """The plan of a stage that reads a dataset: its config, the data, and the identities of the stages it reads."""
    dataset, added = data.load_dataset(config.data), _extra(config)
    images = extra.load_extra(added) if added else None
    weights, source = _start(config), own_source(getattr(config, "model", ""))
    files = {"weights": artifact.file_sha256(weights)} if weights else {}
    if graph := networks.graph_path(getattr(config, "model", "")):
        files |= {"model": graph.name, "graph": networks.graph_sha256(graph)}
    return Plan(
        stage=kind,
        config={**config.semantic(), **files, **({"code": source.hashes()} if source else {})},
        seed=config.seed,
        data=dataset.as_plan() | ({"extra": images.fingerprint} if images else {}),
        inputs={role: stage.identity for role, stage in inputs.items()},
        notes=(*dataset.notes, *(images.notes if images else ())),
    )


def lineage(config: ReadsData, stages: Mapping[str, Stage]) -> dict[str, Path]:
    """Where a stage's inputs lie, by role; where its dataset, extra images and first weights do if they have a path;
    `graph`, the ONNX file that its network came as, and `code`, the folder on the import path with the source of a
    network that a user's function makes."""
    named = {"data": config.data, "extra": _extra(config)}
    paths = {role: split_name(name)[1] for role, name in named.items() if name}
    source, weights = own_source(getattr(config, "model", "")), _start(config)
    graph = networks.graph_path(getattr(config, "model", ""))
    return (
        {role: stage.path for role, stage in stages.items()}
        | {role: Path(path).expanduser() for role, path in paths.items() if path}
        | ({"weights": weights} if weights else {})
        | ({"graph": graph} if graph else {})
        | ({"code": source.place} if source else {})
    )


def code_of(stage: Stage) -> dict[str, Path]:
    """Where the source of a stage's network lay, as lineage names it; nothing where it is no user's own."""
    return {"code": stage.input_path("code")} if "code" in stage.manifest["lineage"] else {}


def own_source(model: str) -> "UserSource | None":
    """The source of a network that a user's function makes, as it is now; None for every other network."""
    spec = networks.function_of(model)
    return None if spec is None else find_source(spec)


def _start(config: ReadsData) -> "Path | None":
    """The checkpoint that a stage's training starts from."""
    weights = getattr(config, "weights", None)
    if weights is None:
        return None
    if networks.is_graph(config.model):  # type: ignore[attr-defined]
        raise CompressError(f"weights {weights}: an ONNX file has its own, which training starts from; leave it out")
    path = Path(weights).expanduser()
    if not path.is_file():
        raise CompressError(f"weights {weights}: no such file; give a checkpoint of {getattr(config, 'model', '')}")
    return path


def _extra(config: ReadsData) -> "str | None":
    """Where the extra images of a stage that trains on some come from, KIND:PATH."""
    section = getattr(config, "extra", None)
    return None if section is None else section.path


def numbered(role: str, roles: Iterable[str]) -> list[str]:
    """Of `roles` those that bear this one's name, in their order: teacher, teacher-2, …"""
    return sorted((name for name in roles if re.fullmatch(rf"{role}(-\d+)?", name)), key=lambda name: (len(name), name))


def read_role(role: str, named: Folders, kinds: Sequence[str]) -> dict[str, Stage]:
    """The stage in one folder or those in several, by the roles that `numbered` lists."""
    folders = [named] if isinstance(named, Path | str) else named
    stages: dict[str, Stage] = {}
    for number, where in enumerate(folders, 1):
        stage = artifact.read(where, kinds)
        if any(stage.identity == other.identity for other in stages.values()):
            raise CompressError(f"{stage.path}: the same {role} is given twice; name each once")
        stages[role if number == 1 else f"{role}-{number}"] = stage
    return stages


def load_role(role: str, stages: Mapping[str, Stage]) -> "Classifier | None":
    """The network of that role, the ensemble of several, None where there is none."""
    from compress.networks.base import Ensemble

    members = [load(stages[member]) for member in numbered(role, stages)]
    return Ensemble(members).eval() if len(members) > 1 else next(iter(members), None)


def load_data(name: str, *stages: Stage) -> "Dataset":
    """The dataset of that name, once every stage was found to be made from the same images and split."""
    dataset = data.load_dataset(name)
    want = dataset.as_plan()
    for stage in stages:
        if "adopted" in stage.config:  # an ONNX file: whether images and classes fit is seen where it is opened
            continue
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


def _fits(teacher: Stage, dataset: "Dataset") -> None:
    """Whether an imported network takes these images and tells these classes apart."""
    from compress.networks import network_files

    about = network_files.read_architecture(teacher.path)
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
