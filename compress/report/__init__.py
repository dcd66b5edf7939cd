"""The report of a run, or of one verified artifact and what it was made from: read from stage folders alone.

Standard library, numpy and `compress.report.page`: no torch, and nothing is computed anew.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from compress.report import page, page_analysis, sources
from compress.report.sources import ReplayedSet, Sources, find_sources
from edge.core import artifact
from edge.core.artifact import MANIFEST, Stage
from edge.core.errors import CompressError
from edge.statement import gate
from edge.statement.statement import Statement, read_statement
from edge.validity.rules import fired_checks
from edge.verify.findings import class_names


def collect(folder: "Path | str", *, require: Sequence[str] = ()) -> dict[str, Any]:
    """The document that `compress.report.page.render` takes, from the folder of a run or of one verified stage.

    Stages that are absent or unfinished are left out; one whose files are damaged raises, as `artifact.read` does.
    Of a verified stage the lineage is followed back as far as it still lies where it lay. `require` are gates such
    as `robust>=0.3`, judged on the shipped artifact.
    """
    behind = find_sources(Path(folder))
    attack_set = sources.read_attack_set(behind.attack_set)
    statements = _statements(behind)
    shipped = next(iter(statements.values()), None)
    weights = behind.teacher.manifest["payload"].get("weights.safetensors") if behind.teacher else None
    return {
        "title": behind.title,
        "notes": [*_strangers(behind, statements), *page_analysis.outdated(behind), *_untrusted(behind)],
        "requirements": _judged(shipped, require),
        "teacher": {"bytes": weights["bytes"]} if weights else None,
        "stages": sources.stage_rows(
            behind, attack_set, {name: stated["predicate"] for name, stated in statements.items()}
        ),
        "verified": [
            page.verified_entry(
                name, statement, _samples(stage), _evidence(stage, attack_set, behind), page.watched(stage.path)
            )
            for stage, (name, statement) in zip(behind.verified.values(), statements.items(), strict=True)
        ],
        "matrix": attack_set.matrix() if attack_set else None,
        "analysis": page_analysis.analysis_part(behind.analysis),
        "training": [curve for name, stage in behind.trained() if (curve := _curve(name, stage))],
        "provenance": [_origin(name, stage) for name, stage in behind.stages()],
        "facts": page.stated_facts(shipped) if shipped else _facts(behind),
    }


def write(folder: "Path | str", out: "Path | str | None" = None, *, require: Sequence[str] = ()) -> Path:
    """Write the report of `folder` and say where: `RUN/report.html`, or beside a verified stage `NAME-report.html`.

    A stage folder's files are hashed, so none is written into one.
    """
    folder = Path(folder)
    document = collect(folder, require=require)
    beside = folder.resolve().with_name(f"{folder.resolve().name}-{page.REPORT}")
    path = Path(out) if out is not None else beside if (folder / MANIFEST).is_file() else folder / page.REPORT
    if path.is_dir():
        raise CompressError(f"{path}: is a folder; give the name of an HTML file")
    if (path.parent / MANIFEST).is_file():
        raise CompressError(f"{path}: lies inside a stage folder, whose files are hashed; choose another place")
    path.parent.mkdir(parents=True, exist_ok=True)
    artifact.write_atomic(path, page.render(document))
    return path


def _statements(sources: Sources) -> dict[str, dict[str, Any]]:
    """Each verified stage's statement under the name it has in the report: `onnx int8 on cpu`."""
    statements: dict[str, dict[str, Any]] = {}
    for folder, stage in sources.verified.items():
        statement = read_statement(stage.file("statement.json")).as_json()
        name = f"{page.artifact_name(statement)} on {stage.config['device']}"
        statements[name if name not in statements else f"{name} ({folder})"] = statement
    return statements


def _strangers(sources: Sources, statements: Mapping[str, Any]) -> list[str]:
    """A sentence for each stage in the folder that is not the one that a verified artifact was made from."""
    held = {"teacher": sources.teacher, "student": sources.student, "quantized": sources.quantized}
    return [
        f"{name} was made from another {entry['stage']} ({entry['identity']:.12}) than the one in this folder "
        f"({stage.identity:.12}); the figures below mix the two."
        for name, statement in statements.items()
        for entry in statement["predicate"]["lineage"]
        if (stage := held.get(entry["stage"])) is not None and stage.identity != entry["identity"]
    ]


def _untrusted(sources: Sources) -> list[str]:
    """A sentence for each stage on which a validity check fired; a statement's own alarms stand beside these."""
    return [
        f"{name}: {', '.join(fired)} fired, its figures are not to be trusted."
        for name, stage in sources.stages()
        if stage.kind != "verified" and (fired := fired_checks(stage.metrics))
    ]


def _judged(shipped: "Mapping[str, Any] | None", require: Sequence[str]) -> list[dict[str, Any]]:
    if shipped is None:
        return []
    outcomes = gate.judge_requirements(Statement.of(shipped), [gate.parse_requirement(text) for text in require])
    return [
        {"text": text, "passed": outcome.passed, "why": outcome.why}
        for text, outcome in zip(require, outcomes, strict=True)
    ]


def _samples(stage: Stage) -> "np.ndarray":
    with np.load(stage.file("latency.npz")) as arrays:
        return np.asarray(arrays["samples_ns"])


def _evidence(stage: Stage, attack_set: "ReplayedSet | None", behind: Sources) -> "dict[str, Any] | None":
    """What `page_images.choose` takes: the images of the attack set and this artifact's verdicts on them."""
    if attack_set is None:
        return None
    with np.load(stage.file("verdicts.npz")) as verdicts:
        names = [str(name) for name in verdicts["attacks"]]
        if not np.array_equal(verdicts["index"], attack_set.index):
            return None
        identity = stage.manifest["plan"]["inputs"]["exported"]
        exported = next((each for each in behind.exported.values() if each.identity == identity), None)
        predicted = np.full(verdicts["broken"].shape, -1)
        if identity in attack_set.identities and names[: len(attack_set.attacks)] == attack_set.attacks:
            predicted[: len(attack_set.attacks)] = attack_set.predictions[:, attack_set.identities.index(identity)]
        pictures = dict(zip(attack_set.attacks, attack_set.adversarial, strict=True))
        pictures |= dict(zip((name for name in names if name not in pictures), verdicts["adversarial"], strict=True))
        return {
            "index": verdicts["index"],
            "labels": verdicts["labels"],
            "clean_predictions": verdicts["clean_predictions"],
            "clean": attack_set.clean,
            "attacks": names,
            "adversarial": np.stack([pictures[name] for name in names]),
            "broken": verdicts["broken"],
            "predictions": predicted,
            "classes": class_names(exported) if exported else [],
        }


def _curve(name: str, stage: Stage) -> "dict[str, Any] | None":
    """Validation accuracy by epoch; robust only of methods that attack, the others do not measure it."""
    if "metrics.jsonl" not in stage.manifest["records"]:
        return None
    epochs = [json.loads(line) for line in stage.file("metrics.jsonl").read_text(encoding="utf-8").splitlines() if line]
    if not epochs:
        return None
    return {
        "label": name,
        "detail": ", ".join(str(stage.config[key]) for key in ("model", "method", "mode") if key in stage.config),
        "clean": [(row["epoch"], row["validation_clean"]) for row in epochs],
        "pgd": [(row["epoch"], row["validation_robust"]) for row in epochs if "validation_robust" in row],
        "best_epoch": stage.metrics.get("best_epoch"),
    }


def _origin(name: str, stage: Stage) -> dict[str, Any]:
    made = stage.manifest["made"]
    return {
        "stage": name,
        "identity": stage.identity,
        "seed": stage.manifest["plan"]["seed"],
        "finished": made["finished"],
        "seconds": made["seconds"],
        "machine": f"{made['host']}: {made['machine']}",
        "command": made["command"],
        "versions": {"python": made["python"], **made["versions"]},
    }


def _facts(sources: Sources) -> dict[str, Any]:
    """The data and the threat of a run in which nothing was verified yet."""
    _, stage = next(sources.stages())
    return {**stage.data, **stage.config.get("threat", {})}
