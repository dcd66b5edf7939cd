"""An attack set made: the protocol carried out on networks and artifacts, and all that is written of it."""

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from compress.attacks import ball, protocol, validity
from compress.attacks.protocol import AttackedModel, ProtocolResult, ProtocolSettings
from compress.config import AttackConfig
from compress.folders import load, load_data
from compress.networks.graph import onnx_twin
from compress.networks.graph.onnx_twin import OnnxClassifier
from compress.remote.runner import RemoteRunner, open_stage
from compress.stages.attack import AttackInputs, chosen_test_images, origin_of
from edge import open_runner
from edge.attacks.checks import wrong
from edge.core import artifact, targets
from edge.core.artifact import Stage, Work
from edge.core.errors import CompressError
from edge.core.progress import say
from edge.runtimes.runner import BATCH_SIZE, MODEL, Runner
from edge.statement import statement
from edge.validity.logits import artifact_checks, chance_check
from edge.validity.rules import record_checks
from edge.verify import golden
from edge.verify.attack_set import ARRAYS_FILE, FORMAT, INDEX_FILE, array_sha256
from edge.verify.findings import known_probabilities


def make_attack_set(config: AttackConfig, inputs: AttackInputs, stages: Mapping[str, Stage], work: Work) -> None:
    """What `stages` hold is attacked by the protocol; images, verdicts and golden images are written into `work`."""
    settings = _settings(config)
    dataset = load_data(config.data, *stages.values())
    index = chosen_test_images(dataset, config.images)
    opened: Callable[[Path], Runner] = open_runner
    if inputs.host is not None:
        opened = functools.partial(open_stage, host=inputs.host, python=inputs.python)
    clean, labels = dataset.images[index], dataset.labels[index]
    models = _models(stages, opened, clean)
    result = protocol.attack_models(models, clean, labels, index, settings)
    adversarial = [candidate.images for candidate in result.candidates]
    arrays = {
        "clean": clean,
        "labels": labels,
        "index": index,
        "adversarial": np.array(adversarial, np.uint8).reshape(-1, *clean.shape),
        "predictions": result.predictions,
        "broken": result.broken,
        "clean_logits": np.stack([attacked.infer(clean) for attacked in models]),
    }
    checks = {
        attacked.label: _checked(attacked, clean, labels, arrays["clean_logits"][place], settings)
        for place, attacked in enumerate(models)
        if attacked.unexecuted is None
    }
    alarms = [*result.alarms, *(alarm for label, rows in checks.items() for alarm in _alarms(label, rows))]
    handful = _handful(models, arrays)
    _save(work, ARRAYS_FILE, arrays)
    _save(work, golden.FILE, handful)
    description: dict[str, Any] = {
        "format": FORMAT,
        "data": dataset.name,
        "classes": len(dataset.classes),
        "threat": {"norm": "linf", "eps": settings.eps, "grid_radius": ball.grid_radius(settings.eps)},
        "ensemble": settings.ensemble,
        "models": [attacked.describe() for attacked in models],
        "attacks": [candidate.describe() for candidate in result.candidates],
        "agreement": result.agreement,
        "alarms": alarms,
        "arrays": _hashes(arrays),
        "golden": {
            "file": golden.FILE,
            "n": len(handful["labels"]),
            "batch_size": [_batch_size(attacked) for attacked in models],
            "arrays": _hashes(handful),
        },
    }
    _float_beside_grid(description["models"], result, arrays)
    text = json.dumps(description, indent=2, ensure_ascii=False) + "\n"
    artifact.write_atomic(work.add_payload(INDEX_FILE), text)
    work.metrics = _metrics(models, arrays) | {
        "alarms": [alarm["meaning"] for alarm in result.alarms],
        "checks": checks,
    }
    remote = {attacked.label: attacked.runner for attacked in models if isinstance(attacked.runner, RemoteRunner)}
    for runner in remote.values():
        runner.close()
    if remote:  # what asking a board cost
        work.metrics["remote"] = {label: runner.traffic() for label, runner in remote.items()}


def _settings(config: AttackConfig) -> ProtocolSettings:
    if ball.grid_radius(config.threat.eps) < 1:
        raise CompressError(
            f"threat.eps: {config.threat.eps} is less than one grey level, no other 8-bit image is within it; "
            f"give 1/255 or more"
        )
    return ProtocolSettings(
        config.threat.eps,
        config.ensemble,
        config.steps,
        config.step_size,
        config.restarts,
        config.temperature,
        config.batch_size,
        config.seed,
    )


def _models(stages: Mapping[str, Stage], opened: Callable[[Path], Runner], clean: np.ndarray) -> list[AttackedModel]:
    """Everything that is attacked, opened: the torch models first, then the artifacts with their twins."""
    models = [_float_network(stages["student"])] if "student" in stages else []
    if "quantized" in stages:
        integer = stages["quantized"]
        models.append(AttackedModel("quantized", "twin", integer.identity, load(integer), precision="int8"))
    artifacts: list[AttackedModel] = []
    for role, stage in stages.items():
        if not role.startswith("exported-"):
            continue
        place, label = stage.path.resolve(), stage.path.resolve().name
        if label in [attacked.label for attacked in [*models, *artifacts]]:
            label = f"{place.parent.name}/{label}"
        twin = _of_chain(stage, models, stages)
        twin, reason = (twin, None) if twin is not None else _of_graph(label, stage, clean)
        if twin is not None and twin not in models:
            models.append(twin)
        runner, unexecuted = _executing(label, stage, twin, opened)
        artifacts.append(
            AttackedModel(
                label,
                "artifact",
                stage.identity,
                twin.model if twin else None,
                runner,
                twin.label if twin else None,
                reason,
                stage.metrics["precision"],
                unexecuted,
            )
        )
    return [*models, *artifacts]


def _float_network(stage: Stage) -> AttackedModel:
    """A student, or a teacher in its place; of an imported ONNX graph its twin, which has gradients."""
    model = load(stage)
    if isinstance(model, OnnxClassifier):
        try:
            model = onnx_twin.build_twin(stage.file(MODEL).read_bytes(), where=str(stage.path))
        except CompressError as fault:
            raise CompressError(
                f"{fault}: without gradients no image can be made on it; leave it out, and artifacts are attacked alone"
            ) from None
        if model.quantizers:
            raise CompressError(f"{stage.path}: is a quantized graph, no float network; export it and give --exported")
        say(f"{stage.path}: is an ONNX graph, attacked by the gradients of its operators in torch")
    return AttackedModel(stage.kind, "student", stage.identity, model)


def _of_chain(stage: Stage, models: list[AttackedModel], stages: Mapping[str, Stage]) -> "AttackedModel | None":
    """The torch model that an artifact was made from, on the grid of the artifact's runtime; None of another chain."""
    made_from = origin_of(stage)
    origin = next((attacked for attacked in models if attacked.identity == made_from), None)
    runtime = targets.get(stage.config["target"]).dialect
    if origin is None or origin.role != "twin" or runtime in (None, targets.DIALECT):
        return origin
    label = f"{origin.label}.{runtime}"
    known = next((attacked for attacked in models if attacked.label == label), None)
    identity = artifact.digest({"twin": runtime, "of": origin.identity})
    return known or AttackedModel(label, "twin", identity, load(stages["quantized"], runtime=runtime), precision="int8")


def _executing(
    label: str, stage: Stage, twin: "AttackedModel | None", opened: Callable[[Path], Runner]
) -> "tuple[Runner | None, str | None]":
    """The artifact's runner; of an engine that cannot be executed here, none and the reason. A board must answer."""
    try:
        return opened(stage.path), None
    except CompressError as fault:
        if targets.get(stage.config["target"]).graph_is_executed or twin is None or opened is not open_runner:
            raise
        say(
            f"{label}: not executed here ({fault}); the set is made without hybrid images of it and its golden logits "
            f"are its twin's, so its figure will be an upper bound: attack it where it runs, or give --host"
        )
        return None, str(fault)


def _of_graph(label: str, stage: Stage, clean: np.ndarray) -> "tuple[AttackedModel | None, str | None]":
    """The twin made from the artifact's own graph, finite on the clean images; else why there is none."""
    identity, precision = artifact.digest({"twin": "of the graph", "of": stage.identity}), stage.metrics["precision"]
    try:
        model = onnx_twin.build_twin(stage.file(MODEL).read_bytes(), where=label)
        twin = AttackedModel(f"{label}.graph", "twin", identity, model, precision=precision)
        if endless := int((~np.isfinite(twin.infer(clean)).all(1)).sum()):
            raise CompressError(
                f"{label}: rebuilt in torch, it gives NaN or infinity for {endless} of {len(clean)} images"
            )
    except CompressError as fault:
        say(f"{fault}: only attacks without gradients reach {label}, and its figure will be an upper bound")
        return None, str(fault).removeprefix(f"{label}: ")
    return twin, None


def _checked(
    attacked: AttackedModel, clean: np.ndarray, labels: np.ndarray, logits: np.ndarray, settings: ProtocolSettings
) -> list[dict[str, Any]]:
    """The validity checks of one model, as records; those that fired are told. `logits` (N,K): what it said of all.

    A torch model is where gradients come from, so they are checked too.
    """
    right = ~wrong(logits, labels)
    chance = chance_check(int(right.sum()), labels, logits.argmax(1))
    if attacked.runner is not None:
        found = known_probabilities(
            artifact_checks(attacked.runner, clean, precision=attacked.precision), attacked.describe(), logits
        )
    else:
        assert attacked.model is not None
        found = validity.network_checks(
            attacked.model,
            clean,
            labels,
            right,
            eps=settings.radius,
            batch_size=settings.batch_size,
        )
    return record_checks([*found, chance], attacked.label)


def _alarms(label: str, rows: list[dict[str, Any]]) -> "Iterator[dict[str, Any]]":
    """The checks that fired as alarms of the set, beside those of twins."""
    for row in rows:
        if row["fired"]:
            measured = {key: row[key] for key in ("value", "threshold", "n")}
            yield {"name": row["name"], "model": label, **measured, "meaning": f"{label}: {row['text']}"}


def _batch_size(attacked: AttackedModel) -> "int | None":
    """Images of one call of an artifact, also of one that others will execute; torch models have no fixed number."""
    if attacked.unexecuted is not None:
        return BATCH_SIZE
    return attacked.runner.batch_size if attacked.runner else None


def _handful(models: list[AttackedModel], arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The golden images and what every model says of them, each asked in one call of its own."""
    chosen = golden.choose_golden(arrays["labels"], arrays["broken"])
    attack, place = (np.array(column, np.int64) for column in zip(*chosen, strict=True))
    images = np.stack([arrays["clean"][i] if a == golden.CLEAN else arrays["adversarial"][a, i] for a, i in chosen])
    return {
        "images": images,
        "labels": arrays["labels"][place],
        "index": arrays["index"][place],
        "attack": attack,
        "logits": np.stack([attacked.infer(images) for attacked in models]),
    }


def _save(work: Work, name: str, arrays: Mapping[str, Any]) -> None:
    with open(work.add_payload(name), "wb") as file:
        np.savez(file, **arrays)


def _hashes(arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    return {name: array_sha256(array) for name, array in arrays.items()}


def _float_beside_grid(rows: list[dict[str, Any]], result: ProtocolResult, arrays: Mapping[str, np.ndarray]) -> None:
    """To each torch model what its white box reaches without rounding, and beside it with rounding."""
    right = arrays["clean_logits"].argmax(2) == arrays["labels"]
    for m, row in enumerate(rows):
        figure = result.float_figures.get(row["label"])
        if figure is None:
            continue
        white_box = ("white-box", row["label"])
        own = [a for a, candidate in enumerate(result.candidates) if (candidate.kind, candidate.source) == white_box]
        standing = right[m] & ~arrays["broken"][own, m].any(0)
        row["float_figures"] = {**figure, "robust on the grid": statement.figure(int(standing.sum()), len(standing))}


def _metrics(models: list[AttackedModel], arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Clean and worst-case accuracy over the set, by model that was asked."""
    right = arrays["clean_logits"].argmax(2) == arrays["labels"]
    standing = right & ~arrays["broken"].any(0)
    asked = [(m, attacked) for m, attacked in enumerate(models) if attacked.unexecuted is None]
    return {
        "n": len(arrays["labels"]),
        "clean": {attacked.label: float(right[m].mean()) for m, attacked in asked},
        "robust": {attacked.label: float(standing[m].mean()) for m, attacked in asked},
    }
