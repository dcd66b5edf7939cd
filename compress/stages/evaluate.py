"""The evaluated stage: how robust a torch model is, in the worst case over an ensemble of attacks, and beyond it."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from compress import training
from compress.attacks import ensemble, presets, validity
from compress.attacks.ensemble_outcomes import EnsembleResult
from compress.config import EvaluateConfig
from compress.data.corruptions import CORRUPTIONS, SEVERITIES, corrupted
from compress.folders import TORCH_STAGES, lineage, load, load_data, plan_of
from compress.networks.base import Classifier
from compress.numerics import ranks
from compress.stages.attack import chosen_test_images
from edge.attacks import checks
from edge.core import artifact
from edge.core.artifact import Plan, Stage, Work
from edge.core.errors import CheckFailed, CompressError
from edge.core.progress import say

FIGURES = "evaluation.json"
TABLE = "verdicts.npz"
STATE = "state"
KEEP = (STATE,)


@dataclass(frozen=True)
class EvaluateInputs:
    """Folders of the model that is evaluated, and of others for the transfer of adversarial images."""

    model: "Path | str"
    others: "Sequence[Path | str]" = ()


def plan(config: EvaluateConfig, inputs: EvaluateInputs) -> Plan:
    """What decides the result."""
    return plan_of("evaluated", config, _read(inputs))


def run(config: EvaluateConfig, inputs: EvaluateInputs, out: "Path | str", *, replace: bool = False) -> Stage:
    """Evaluate a teacher, student or quantized stage into `out`; its adversarial images are tried on the others too."""
    stages = _read(inputs)

    def make(work: Work) -> None:
        dataset = load_data(config.data, *stages.values())
        index = chosen_test_images(dataset, config.images)
        images, labels = dataset.images[index], dataset.labels[index]
        say(f"evaluating {stages['model'].path} on {len(index)} test images of {dataset.name}")
        models = {role: _EvaluatedModel(stage, images, labels, config, work) for role, stage in stages.items()}
        evaluated = models["model"]
        result = evaluated.attacked(config.attack, config.norm, config.threat.radius)
        validity_checks = validity.validity_checks(
            evaluated.model, images, labels, result, batch_size=config.batch_size, device=evaluated.device
        )
        figures: dict[str, Any] = {
            "data": {**dataset.as_plan(), "n": len(index), "classes": list(dataset.classes)},
            "attack": config.attack,
            **result.as_dict(),
            "checks": [asdict(check) for check in validity_checks],
        }
        if config.curve:
            rows = []  # by the quick ensemble, upper bounds; at the threat's own radius as measured
            for eps in config.curve:
                at = config.threat.model_copy(update={"eps": eps}).radius
                measured = eps == config.threat.eps
                there = result if measured else evaluated.attacked(["quick"], config.norm, at)
                rows.append({"eps": eps, "attack": config.attack if measured else ["quick"], **there.total.as_dict()})
            figures["curve"] = rows
        if config.unseen is not None:
            # the other norm, which the model was not trained against, by the quick ensemble: an upper bound
            norm = "l2" if config.norm == "linf" else "linf"
            radius = config.threat.model_copy(update={"eps": config.unseen}).radius
            quick = evaluated.attacked(["quick"], norm, radius).total.as_dict()
            figures["unseen"] = {"norm": norm, "eps": config.unseen, "attack": ["quick"], **quick}
        if config.corruptions:
            figures["corruptions"] = _corruptions(evaluated)
        if len(models) > 1:
            figures["transfer"] = _transfer(models, config, result)
        _write(work, figures, result, index)

    evaluation = ranks.build(
        out, plan_of("evaluated", config, stages), make, lineage=lineage(config, stages), keep=KEEP, replace=replace
    )
    if evaluation.metrics["fired"] and not config.allow_invalid:
        # a figure that a validity check calls into doubt is written, said, and fails the run
        checked = evaluation.metrics["checks"] if ranks.rank() == 0 else []
        texts = "; ".join(check["text"] for check in checked if check["fired"])
        raise CheckFailed(f"{evaluation.path}: the figure is not to be trusted: {texts}")
    return evaluation


def _read(inputs: EvaluateInputs) -> dict[str, Stage]:
    stages = {"model": artifact.read(inputs.model, TORCH_STAGES)}
    for number, folder in enumerate(inputs.others):
        stages[f"other-{number}"] = artifact.read(folder, TORCH_STAGES)
    return stages


class _EvaluatedModel:
    """One model under evaluation, on its device, with the images it is evaluated on."""

    def __init__(
        self, stage: Stage, images: np.ndarray, labels: np.ndarray, config: EvaluateConfig, work: Work
    ) -> None:
        self.stage, self.images, self.labels, self.config, self.work = stage, images, labels, config, work
        self.device = training.device()
        self.model: Classifier = load(stage).to(self.device)

    def attacked(self, attack: "list[str]", norm: str, eps: float) -> EnsembleResult:
        """The ensemble's verdicts; what a killed call found is kept beside the stage in the making."""
        wanted = presets.attack_plan(attack, self.classes)
        # an attack that was mended since has another sha256, so the same command begins it anew
        plan = [[each.name, dict(each.parameters())] for each in wanted]
        key = artifact.digest([self.stage.identity, attack, norm, eps, plan])[:16]
        state = self.work.file(STATE) / key
        state.mkdir(parents=True, exist_ok=True)
        return ensemble.evaluate(
            self.model,
            self.images,
            self.labels,
            wanted,
            eps=eps,
            norm=norm,
            seed=self.config.seed,
            batch_size=self.config.batch_size,
            device=self.device,
            precision=self.config.precision,
            identity=self.stage.identity,
            state_folder=state,
            budget_s=self.config.budget_s,
        )

    @property
    def classes(self) -> int:
        with torch.no_grad():
            return int(self.model(torch.zeros(1, *self.images.shape[1:], device=self.device)).shape[1])

    def right(self, images: np.ndarray) -> np.ndarray:
        """Which images, uint8 or float32 (N,C,H,W), are classified right: bool (N,)."""
        logits = []
        for begin in range(0, len(images), self.config.batch_size):
            part = torch.from_numpy(images[begin : begin + self.config.batch_size])
            x = part.float() / 255 if part.dtype == torch.uint8 else part
            with torch.no_grad():
                logits.append(self.model(x.to(self.device)).cpu().numpy())
        return ~checks.wrong(np.concatenate(logits), self.labels)


def _corruptions(evaluated: _EvaluatedModel) -> dict[str, Any]:
    """Accuracy by corruption: its mean over severities 1, 3 and 5, and each."""
    rows: dict[str, Any] = {}
    for name in CORRUPTIONS:
        each = {str(s): float(evaluated.right(corrupted(evaluated.images, name, s)).mean()) for s in SEVERITIES}
        rows[name] = {"mean": float(np.mean(list(each.values()))), "by_severity": each}
    return {"mean": float(np.mean([row["mean"] for row in rows.values()])), **rows}


def _transfer(models: "dict[str, _EvaluatedModel]", config: EvaluateConfig, result: EnsembleResult) -> dict[str, Any]:
    """What each model's adversarial images do to every other: accuracy [from][to], over all images."""
    results = {
        role: result if role == "model" else model.attacked(config.attack, config.norm, config.threat.radius)
        for role, model in models.items()
    }
    matrix = {
        source: {target: float(models[target].right(attacked.adversarial).mean()) for target in models}
        for source, attacked in results.items()
    }
    names = {role: str(model.stage.path) for role, model in models.items()}
    return {"models": names, "accuracy": matrix}


def _write(work: Work, figures: dict[str, Any], result: EnsembleResult, index: np.ndarray) -> None:
    artifact.write_atomic(work.add_record(FIGURES), json.dumps(figures, indent=2, ensure_ascii=False) + "\n")
    with open(work.add_payload(TABLE), "wb") as file:
        np.savez_compressed(
            file,
            index=index,
            labels=result.labels,
            predictions=result.predictions,
            right=result.right,
            robust=result.robust,
            inconclusive=result.inconclusive,
            broken_by=result.broken_by,
            tried=result.tried,
            broken=result.broken,
            margins=result.margins,
            adversarial=result.adversarial,
            attacks=np.array([column.name for column in result.columns]),
        )
    total = figures | {"fired": [check["name"] for check in figures["checks"] if check["fired"]]}
    keys = ("n", "clean", "robust", "robust_bounds", "interval", "inconclusive", "fired", "checks")
    work.metrics = {key: total[key] for key in keys}


def read_evaluation(stage: Stage) -> dict[str, Any]:
    """The figures of an evaluated stage."""
    if stage.kind != "evaluated":
        raise CompressError(f"{stage.path}: is a stage of kind {stage.kind}; needed here: evaluated")
    return dict(json.loads(stage.file(FIGURES).read_text(encoding="utf-8")))
