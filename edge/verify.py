"""The verified stage: the artifact's own bytes, executed, attacked, timed, and stated.

Replay of the attack set, Square and a decision-based attack straight at the runtime, agreement with the twin, alarms,
latency. What needs gradients comes with the attack set (`compress.attack`). numpy and one runtime, never torch.
"""

import json
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from compress import artifact
from compress.artifact import Plan, Stage, Work
from compress.errors import CompressError
from edge import bench, findings, golden, machine, page, statement
from edge.attack_set import AttackSet
from edge.progress import say
from edge.runner import Runner, open_runner
from edge.statement import STATEMENT, VERDICTS
from edge.verdicts import Verdicts, execute

LATENCY = "latency.npz"
TARGETS_BY_DEVICE = {"cpu": ("onnx",)}


def plan(config: Mapping[str, Any], inputs: Mapping[str, Any]) -> Plan:
    """What decides the result."""
    return _plan(config, *_read(inputs))


def run(config: Mapping[str, Any], inputs: Mapping[str, Any], out: "Path | str", *, replace: bool = False) -> Stage:
    """Verify `inputs["exported"]` with `inputs["attack-set"]` into `out`; `config` as `VerifyConfig.semantic()`."""
    exported, attack_stage = _read(inputs)
    _executable(exported, config["device"])

    def make(work: Work) -> None:
        attacks = AttackSet.read(attack_stage)
        _compatible(exported, attacks, config)
        before = machine.state()
        golden_found = _golden(exported, attacks, config)
        with open_runner(exported.path, batch_size=config["batch_size"], threads=config["threads"]) as runner:
            _same_classes(runner, attacks)
            verdicts = execute(runner, attacks, config)
            found = findings.predicate(exported, attacks, verdicts, config, runner)
        found["golden"] = golden_found
        samples, found["latency"] = _time(exported, attacks, config)
        found["machine"] = {"before": before, "after": machine.state()}
        table = _table(attacks, verdicts, [row["name"] for row in found["attacks"]])
        found["verdicts"] = _write_verdicts(work, table)
        stated = statement.build(found)
        _write(work, attacks, verdicts, table, stated, samples)
        work.metrics = _metrics(stated)

    lineage = {"exported": exported.path, "attack-set": attack_stage.path}
    return artifact.build(out, _plan(config, exported, attack_stage), make, lineage=lineage, replace=replace)


# ------------------------------------------------------------------------------------------- inputs


def _read(inputs: Mapping[str, Any]) -> tuple[Stage, Stage]:
    return artifact.read(inputs["exported"], ("exported",)), artifact.read(inputs["attack-set"], ("attack-set",))


def _plan(config: Mapping[str, Any], exported: Stage, attacks: Stage) -> Plan:
    inputs = {"exported": exported.identity, "attack-set": attacks.identity}
    return Plan("verified", dict(config), int(config["seed"]), exported.data, inputs)


def _executable(exported: Stage, device: str) -> None:
    """Only what runs here is verified here: the verdict of other bytes would be another verdict."""
    target = exported.config["target"]
    if device not in TARGETS_BY_DEVICE:
        raise CompressError(f"unknown device {device!r} (known: {', '.join(TARGETS_BY_DEVICE)})")
    if target not in TARGETS_BY_DEVICE[device]:
        raise CompressError(
            f"{exported.path}: a {target} artifact does not run on --device {device}; verify it where it runs"
        )


def _compatible(exported: Stage, attacks: AttackSet, config: Mapping[str, Any]) -> None:
    if exported.data["name"] != config["data"]:
        raise CompressError(
            f"{exported.path}: made for {exported.data['name']}, asked for {config['data']}; give --data "
            f"{exported.data['name']}"
        )
    for key, what in (("fingerprint", "images"), ("split", "split")):
        if exported.data[key] != attacks.stage.data[key]:
            raise CompressError(
                f"{attacks.stage.path}: an attack set of another {what} ({attacks.stage.data[key]:.12}) than "
                f"{exported.path} ({exported.data[key]:.12}); make one from the same data"
            )
    stated, given = attacks.about["threat"], config["threat"]
    if (stated["norm"], attacks.eps) != (given["norm"], Fraction(given["eps"])):
        raise CompressError(
            f"{attacks.stage.path}: made for {stated['norm']} eps {stated['eps']}, asked for {given['norm']} eps "
            f"{given['eps']}; run compress attack with --eps {given['eps']}"
        )


def _same_classes(runner: Runner, attacks: AttackSet) -> None:
    if runner.classes != attacks.about["classes"] or runner.input_shape != attacks.clean.shape[1:]:
        raise CompressError(
            f"{attacks.stage.path}: images {attacks.clean.shape[1:]} of {attacks.about['classes']} classes, the "
            f"artifact takes {runner.input_shape} and gives {runner.classes}; use an attack set of this model's data"
        )


def _golden(exported: Stage, attacks: AttackSet, config: Mapping[str, Any]) -> "dict[str, Any] | None":
    """The golden handful at the batch size at which the set was made, told at once; None where it is not in the set."""
    place = attacks.place(exported.identity)
    if place is None:
        return None
    batch_size = attacks.about["golden"]["batch_size"][place]
    with open_runner(exported.path, batch_size=batch_size, threads=config["threads"]) as runner:
        _same_classes(runner, attacks)
        found = golden.check(runner, attacks.stage)
    if found is not None:
        say(golden.line(found))
    return found


def _time(exported: Stage, attacks: AttackSet, config: Mapping[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
    """Latency by a runner of its own, opened at the batch size that is timed."""
    ask = config["latency"]
    with open_runner(exported.path, batch_size=ask["batch_size"], threads=config["threads"]) as runner:
        samples, first_ms = bench.latency(runner, attacks.clean, warmup=ask["warmup"], samples=ask["samples"])
        return samples, bench.summary(
            samples,
            batch_size=runner.batch_size,
            warmup=ask["warmup"],
            cold_start_ms=runner.open_ms,
            first_ms=first_ms,
        )


# ------------------------------------------------------------------------------------------- files


def _table(attacks: AttackSet, verdicts: Verdicts, names: "list[str]") -> dict[str, Any]:
    """Verdicts by image and attack, with the images that the attacks here made."""
    free = list(verdicts.free.values())
    shape = attacks.clean.shape
    return {
        "index": attacks.index,
        "labels": attacks.labels,
        "clean_predictions": verdicts.clean_logits.argmax(1),
        "attacks": np.array(names),
        "broken": verdicts.broken,
        "undecided": verdicts.undecided,
        "adversarial": np.array([found.adversarial for found in free], np.uint8).reshape(len(free), *shape),
        "queries": np.array([found.queries for found in free], np.int64).reshape(len(free), shape[0]),
    }


def _write_verdicts(work: Work, table: Mapping[str, Any]) -> dict[str, str]:
    """The table's file, and the hash by which the statement names it."""
    path = work.add_payload(VERDICTS)
    with open(path, "wb") as file:
        np.savez(file, **table)
    return {"file": VERDICTS, "sha256": artifact.file_sha256(path)}


def _write(
    work: Work,
    attacks: AttackSet,
    verdicts: Verdicts,
    table: Mapping[str, Any],
    stated: dict[str, Any],
    samples_ns: np.ndarray,
) -> None:
    text = json.dumps(stated, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    artifact.write_atomic(work.add_record(STATEMENT), text)
    with open(work.add_record(LATENCY), "wb") as file:
        np.savez(file, samples_ns=samples_ns)
    evidence = {
        **table,
        "clean": attacks.clean,
        "adversarial": np.concatenate([attacks.adversarial, table["adversarial"]]),
        "predictions": verdicts.all_predictions,
    }
    page.write_verified(work.path, stated, samples_ns, evidence)
    work.add_record(page.REPORT)


def _metrics(stated: Mapping[str, Any]) -> dict[str, Any]:
    """The few figures that a summary shows."""
    predicate = stated["predicate"]
    figures, timing = predicate["figures"], predicate["latency"]
    return {
        "n": predicate["data"]["n"],
        "clean": figures["clean"]["value"],
        "robust": figures["robust"]["value"] if figures["robust"] else None,
        "upper_bound": figures["upper_bound"]["value"] if figures["upper_bound"] else None,
        "p50_ms": timing["p50_ms"],
        "p99_ms": timing["p99_ms"],
        "bytes": predicate["artifact"]["bytes"],
        "alarms": [alarm["name"] for alarm in predicate["alarms"] if alarm["fired"]],
    }
