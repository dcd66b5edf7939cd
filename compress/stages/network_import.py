"""A network that others trained brought in: recognised, written, opened again, checked."""

from typing import Any

import onnx
import torch

from compress import data, training
from compress.config import ImportConfig
from compress.data.dataset import Dataset
from compress.data.split import Split, to_float
from compress.networks import network_files
from compress.networks.base import Classifier, count_parameters, count_stored
from compress.networks.foreign_network import Foreign
from compress.networks.graph.onnx_twin import OnnxClassifier
from compress.networks.graph.output_meaning import PROBABILITIES, output_meaning
from compress.numerics.seeds import generator
from compress.stages.attack import chosen_test_images
from compress.zoo import check, importing
from compress.zoo.check import TeacherCheck
from compress.zoo.checkpoints import ONNX_SUFFIX
from compress.zoo.contract import check_contract
from compress.zoo.importing import ImportedNetwork
from compress.zoo.sources import Source
from edge.core import artifact
from edge.core.artifact import Work
from edge.core.errors import CompressError
from edge.core.progress import say
from edge.runtimes.runner import MODEL
from edge.validity.logits import distributions, probabilities_check

PROBED = 16  # images of noise, and as many of the dataset, that show what the outputs are


def import_teacher(config: ImportConfig, source: Source, work: Work) -> None:
    """The network of `source` written into `work`, and what was measured of it."""
    dataset = data.load_dataset(config.data) if config.data else None
    if source.kind == "file" and source.files[0].suffix == ONNX_SUFFIX:
        model: Classifier
        if config.features:
            raise CompressError(f"features: {source.text} is a graph without modules; leave them out")
        model, architecture, parameters = _onnx(source, dataset, work)
        notes = []
    else:
        classes = len(dataset.classes) if dataset else None
        shape = dataset.images.shape[1:] if dataset else (0, *config.sides)
        network = importing.import_network(
            source, arch=config.arch, normalize=config.normalize, key=config.key, classes=classes, shape=shape
        )
        model, architecture = _torch(network, source, dataset, config, work)
        parameters = count_parameters(model)
        notes = [network.note] if network.note else []
    if network_files.gives_probabilities(architecture):
        notes.append("its outputs are probabilities, their logarithm is taken as logits")
        say(f"{source.text}: {notes[-1]}")
    work.metrics = {"model": architecture["model"], "parameters": parameters}
    if isinstance(model, Foreign) and model.has_features:
        work.metrics["features"] = model.found(model.shape).as_metrics()
    if notes:
        work.metrics["note"] = "; ".join(notes)
    if dataset is not None and config.check:
        work.metrics |= _checked(model, dataset, source, config)


def _onnx(source: Source, dataset: "Dataset | None", work: Work) -> "tuple[OnnxClassifier, dict[str, Any], int]":
    """A graph as it is: copied, opened by ONNX Runtime; with the number of its parameters."""
    (path,) = source.files
    model = OnnxClassifier(path)
    runner = model.runner
    if dataset is not None:
        network = ImportedNetwork(network_files.ONNX, runner.input_shape[0], runner.classes, {})
        check.refuse_mismatch(network, len(dataset.classes), dataset.images.shape[1], source.text, dataset.name)
    classes = dataset.classes if dataset else tuple(map(str, range(runner.classes)))
    content = path.read_bytes()
    proto = onnx.load_model_from_string(content)
    stated = _ends_in_softmax(proto, source)
    model.probabilities = stated or _gives_probabilities(model, runner.input_shape, dataset, source)
    architecture = network_files.describe_network(
        network_files.ONNX, runner.input_shape, classes, probabilities=model.probabilities
    )
    artifact.write_atomic(work.add_payload(MODEL), content)
    network_files.write_architecture(work, architecture)
    return model, architecture, count_stored(proto.graph)


def _torch(
    network: ImportedNetwork, source: Source, dataset: "Dataset | None", config: ImportConfig, work: Work
) -> "tuple[Classifier, dict[str, Any]]":
    """Architecture and weights written, then opened again as every later stage will."""
    if dataset is not None:
        check.refuse_mismatch(network, len(dataset.classes), dataset.images.shape[1], source.text, dataset.name)
    shape = dataset.images.shape[1:] if dataset else (network.channels, *config.sides)
    classes = dataset.classes if dataset else tuple(map(str, range(network.classes)))
    named = config.features.model_dump(exclude_none=True) if config.features else None
    architecture = network_files.describe_network(network.model, shape, classes, features=named)
    network_files.write_weights(work.add_payload(network_files.WEIGHTS), network.weights)
    network.weights.clear()  # lets go of the checkpoint before its copy is mapped: a network of gigabytes fits once
    model = network_files.load_network(architecture, work.path).eval().requires_grad_(False)
    check_contract(model, shape, network.classes, source.text)
    if _gives_probabilities(model, shape, dataset, source):
        architecture = network_files.describe_network(network.model, shape, classes, probabilities=True, features=named)
        model = network_files.load_network(architecture, work.path).eval().requires_grad_(False)
    network_files.write_architecture(work, architecture)
    return model, architecture


def _ends_in_softmax(proto: onnx.ModelProto, source: Source) -> bool:
    """Whether the graph says that it gives probabilities; those whose logarithm is no logit are refused."""
    meaning = output_meaning(proto)
    if meaning.kind != PROBABILITIES:
        return False
    if meaning.function == "sigmoid" or (meaning.factor, meaning.offset) != (1, 0):
        ends = "the outputs of sigmoids" if meaning.function == "sigmoid" else meaning.wording
        raise CompressError(
            f"{source.text}: its graph ends in {ends}; a teacher gives logits: export the values before them"
        )
    return True


def _gives_probabilities(
    model: Classifier, shape: "tuple[int, ...]", dataset: "Dataset | None", source: Source
) -> bool:
    """Whether its outputs are a softmax's, on noise and on validation images; those of sigmoids are refused.

    A native network and one whose logarithm is taken already end in logits.
    """
    if not isinstance(model, Foreign | OnnxClassifier) or model.probabilities:
        return False
    shown = torch.rand((PROBED, *shape), generator=generator("probabilities"))
    if dataset is not None:
        shown = torch.cat([shown, to_float(torch.from_numpy(dataset.part("val")[0][:PROBED]))])
    with torch.no_grad():
        answers = model(shown).float().numpy()
    found = probabilities_check(answers)
    if found.fired and not distributions(answers).all():
        raise CompressError(f"{source.text}: its {found.seen}; a teacher gives logits: return the values before them")
    return found.fired


def _checked(model: Classifier, dataset: Dataset, source: Source, config: ImportConfig) -> dict[str, Any]:
    """The check's metrics; a gap to the published figures is told on stderr as well."""
    index = chosen_test_images(dataset, min(config.images, len(dataset.splits["test"])))
    where = training.device()
    split = Split(torch.from_numpy(dataset.images[index]).to(where), torch.from_numpy(dataset.labels[index]).to(where))
    model.to(where)
    how = TeacherCheck(
        config.attack,
        config.threat.eps,
        config.threat.radius,
        config.steps,
        config.queries,
        config.batch_size,
        config.seed,
    )
    say(f"checking {source.text} on {len(index)} test images of {dataset.name}, eps {config.threat.eps}")
    figures = check.measure_teacher(model, split, how, source.text)
    if source.entry is not None and dataset.name in (source.entry.dataset, "imagefolder", "npz", "parquet"):
        figures["published"] = check.compare_published(model, split, figures["test"], source.entry, how)
        if figures["published"]["explained"]:
            say(f"{source.text}: {figures['published']['explained']}")
    return figures
