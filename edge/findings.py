"""From verdicts to the statement's predicate: figures, rows of attacks, agreement with the twin, the lineage."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from compress import artifact
from compress.artifact import Stage
from compress.errors import CompressError
from edge import alarms, protocol, statement
from edge.attack_set import AttackSet
from edge.runner import MODEL, Runner
from edge.verdicts import FREE, Verdicts

APPLIED_TO = "pixels in [0, 1] on the 8-bit grid, the model's own input; no resize or colour conversion comes after it"


def predicate(
    exported: Stage, attacks: AttackSet, verdicts: Verdicts, config: Mapping[str, Any], runner: Runner
) -> dict[str, Any]:
    """All of the statement's predicate but `latency` and `machine`."""
    twin = attacks.place(exported.manifest["plan"]["inputs"]["model"])
    found = agreement(attacks, verdicts, twin)
    parts = protocol.coverage(
        attacks.about["attacks"],
        itself=attacks.label(attacks.place(exported.identity)),
        twin=attacks.label(twin),
        student=str(attacks.label(attacks.student)),
        ran=list(verdicts.free),
    )
    payload = exported.manifest["payload"][MODEL]
    return {
        "artifact": {
            "identity": exported.identity,
            "file": MODEL,
            "sha256": payload["sha256"],
            "bytes": payload["bytes"],
            "target": exported.config["target"],
            "precision": exported.metrics["precision"],
            "executed": True,
        },
        "threat": {**attacks.about["threat"], "applied_to": APPLIED_TO},
        "data": {**exported.data, "n": len(verdicts.labels)},
        "figures": figures(verdicts, covered=all(part["covered"] for part in parts)),
        "protocol": parts,
        "attacks": attack_rows(attacks, verdicts, config),
        "differential": differential(attacks, verdicts),
        "agreement": found,
        "alarms": alarms.judge(verdicts, found),
        "runtime": runner.describe(),
        "batch_size": runner.batch_size,
        "seed": config["seed"],
        "versions": artifact.versions(),
        "lineage": lineage(exported),
    }


def figures(verdicts: Verdicts, *, covered: bool) -> dict[str, Any]:
    """Clean accuracy, and the worst case over all attacks: `robust` when the protocol is covered, else a bound."""
    n, right = len(verdicts.labels), verdicts.right
    worst = statement.figure(int((right & ~verdicts.broken.any(0)).sum()), n)
    return {
        "clean": statement.figure(int(right.sum()), n),
        "robust": worst if covered else None,
        "upper_bound": None if covered else worst,
    }


def attack_rows(attacks: AttackSet, verdicts: Verdicts, config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row an attack; `alone` counts the images that no other attack breaks."""
    keys = ("name", "kind", "source", "parameters", "where")
    about = [{key: entry[key] for key in keys} for entry in attacks.about["attacks"]]
    for name in verdicts.free:
        kind, _, budget = FREE[name]
        parameters = {"queries": config[budget], "seed": config["seed"]}
        about.append(dict(zip(keys, (name, kind, "artifact", parameters, "this device"), strict=True)))
    broken = verdicts.broken
    return [
        {
            **entry,
            "n": len(row),
            "broken": int(row.sum()),
            "robust_accuracy": float((verdicts.right & ~row).mean()),
            "alone": int((row & (broken.sum(0) == 1)).sum()),
        }
        for entry, row in zip(about, broken, strict=True)
    ]


def differential(attacks: AttackSet, verdicts: Verdicts) -> dict[str, int]:
    """Candidates that break the artifact and leave the float student right, of all; both right on the clean image."""
    student = attacks.student
    student_right = attacks.clean_logits[student].argmax(1) == attacks.labels
    stays = (attacks.predictions[:, student] == attacks.labels) & student_right
    return {"count": int((verdicts.replayed & verdicts.right & stays).sum()), "n": int(verdicts.replayed.size)}


def agreement(attacks: AttackSet, verdicts: Verdicts, twin: "int | None") -> "dict[str, Any] | None":
    """The artifact against its twin, on clean images and on every candidate; None where the set does not hold it."""
    if twin is None:
        return None
    want, got = attacks.clean_logits[twin], verdicts.clean_logits
    return {
        "clean": {
            "n": len(got),
            "argmax_agreement": float((want.argmax(1) == got.argmax(1)).mean()),
            "max_abs": float(np.abs(want - got).max()),
        },
        "adversarial": {
            "n": int(verdicts.predictions.size),
            "argmax_agreement": float((attacks.predictions[:, twin] == verdicts.predictions).mean()),
        },
    }


def lineage(stage: Stage) -> list[dict[str, str]]:
    """The chain from the artifact back to the teacher, as far as its folders are found unchanged."""
    chain = [{"stage": stage.kind, "identity": stage.identity}]
    for role in ("model", "student", "teacher"):
        identity = stage.manifest["plan"]["inputs"].get(role)
        if identity is None:
            continue
        above = _above(stage, role)
        if above is None or above.identity != identity:
            return [*chain, {"stage": role, "identity": identity}]
        return [*chain, *lineage(above)]
    return chain


def _above(stage: Stage, role: str) -> "Stage | None":
    if role not in stage.manifest["lineage"]:
        return None
    try:
        return artifact.read(stage.input_path(role))
    except CompressError:
        return None
