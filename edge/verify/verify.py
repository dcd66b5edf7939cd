"""The verified stage: the artifact's own bytes, executed, attacked, timed, and stated.

Replay of the attack set, Square and a decision-based attack straight at the runtime, agreement with the twin, alarms,
latency. What needs gradients comes with the attack set (`compress.stages.attack`). numpy and one runtime, never torch.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.bench.measure import TimingRequest, TimingSubject, check_timing, measure_latency
from edge.bench.run import elsewhere_warnings
from edge.core import artifact, targets
from edge.core.artifact import Plan, Stage, Work
from edge.core.errors import CompressError
from edge.core.progress import say
from edge.evidence import Watch, samples
from edge.runtimes.runner import Runner, executable, open_runner
from edge.statement.statement import (
    STATEMENT,
    VERDICTS,
    BoundFile,
    GoldenEvidence,
    MachineWarning,
    Predicate,
    Statement,
)
from edge.statement.timing import LatencyFigures
from edge.validity.logits import artifact_checks
from edge.verify import findings, golden, preprocess_parity
from edge.verify.attack_set import AttackSet
from edge.verify.verdicts import Verdicts, execute_attacks

LATENCY = "latency.npz"


@dataclass(frozen=True)
class VerifyInputs:
    """Folders of the artifact and of the attack set that it is judged by."""

    exported: "Path | str"
    attack_set: "Path | str"


@dataclass(frozen=True)
class VerifiedWork:
    """A verified folder before it is complete: what a record beside the statement, such as the page, is made of."""

    work: Work
    statement: Statement
    samples_ns: "npt.NDArray[np.int64]"  # (n,) raw latencies
    evidence: Mapping[str, Any]  # the verdicts' table, with all images and predictions of all attacks, class names


AddRecord = Callable[[VerifiedWork], None]


def no_record(written: VerifiedWork) -> None:
    """Nothing beside the statement: the page is written on a workstation."""


def plan(config: Mapping[str, Any], inputs: VerifyInputs) -> Plan:
    """What decides the result."""
    return _plan(config, *_read(inputs))


def run(
    config: Mapping[str, Any],
    inputs: VerifyInputs,
    out: "Path | str",
    *,
    replace: bool = False,
    add_record: AddRecord = no_record,
) -> Stage:
    """Verify the artifact into `out`; `config` as `VerifyConfig.semantic()`.

    `add_record` may add a record of its own to the folder before that is complete.
    """
    exported, attack_stage = _read(inputs)
    executable(exported, config["device"])
    _check_batches(exported, config)

    def make(work: Work) -> None:
        attacks = AttackSet.read(attack_stage)
        _check_compatible(exported, attacks, config)
        pipeline = preprocess_parity.read_pipeline(config, attacks.clean)
        ask = TimingRequest.read(config["latency"], config["seed"]).with_single()
        device, threads = config["device"], config["threads"]
        with open_runner(exported, batch_size=config["batch_size"], threads=threads, device=device) as runner:
            # What is timed: the bytes that were judged, made executable anew at each batch size that is timed
            frames = attacks.clean if pipeline is None else pipeline.frames
            function = None if pipeline is None else pipeline.preprocess
            timed_subject = TimingSubject(str(exported.path), runner.again, lambda other: frames, function)
            check_timing([timed_subject], ask)
            watch = Watch(gpu=device != "cpu")
            if runner.classes != attacks.about["classes"] or runner.input_shape != attacks.clean.shape[1:]:
                raise CompressError(
                    f"{attacks.stage.path}: images {attacks.clean.shape[1:]} of {attacks.about['classes']} classes, "
                    f"the artifact takes {runner.input_shape} and gives {runner.classes}; use an attack set of this "
                    "model's data"
                )
            golden_evidence = _golden(exported, runner, attacks)
            checks = artifact_checks(
                runner, attacks.clean, precision=exported.metrics["precision"], sizes=(1, ask.batch_size)
            )
            verdicts = execute_attacks(runner, attacks, config)
            judged = findings.judge_artifact(exported, attacks, verdicts, checks, config, runner)
            for name, content in runner.kept().items():
                artifact.write_atomic(work.add_payload(name), content)
            if pipeline is not None:
                clean = attacks.clean, attacks.labels, verdicts.clean_logits
                parity = preprocess_parity.pipeline_parity(pipeline, runner, *clean)
                threat = dataclasses.replace(judged.threat, applied_to=pipeline.applied_to)
                judged = dataclasses.replace(judged, preprocess=parity, threat=threat)
        with watch.timing():
            (timed,) = measure_latency([timed_subject], ask)
        assert timed.alarm is not None  # a subject was timed
        assert isinstance(timed.latency, LatencyFigures)  # `with_single` asked for single queries
        state = watch.found(timed.spans, timed.latency.spread, timed.latency.conditions.load)
        warnings = [MachineWarning(**row) for row in state["warnings"]]
        watch.samples.write(work.add_record(samples.FILE))
        table = _table(attacks, verdicts, [row.name for row in judged.attacks])
        path = work.add_payload(VERDICTS)
        with open(path, "wb") as file:
            np.savez(file, **table)
        stated = Statement(
            dataclasses.replace(
                judged,
                alarms=[*judged.alarms, timed.alarm],
                golden=golden_evidence,
                latency=timed.latency,
                machine=state["machine"],
                warnings=[*elsewhere_warnings(device, state["machine"]["before"]), *warnings],
                verdicts=BoundFile(VERDICTS, artifact.file_sha256(path)),
            )
        )
        artifact.write_atomic(work.add_record(STATEMENT), stated.text())
        with open(work.add_record(LATENCY), "wb") as file:
            np.savez(file, **timed.samples)
        evidence = _evidence(attacks, verdicts, table) | {"classes": findings.class_names(exported)}
        add_record(VerifiedWork(work, stated, timed.samples["samples_ns"], evidence))
        work.metrics = metrics(stated.predicate)

    lineage = {"exported": exported.path, "attack-set": attack_stage.path}
    return artifact.build(out, _plan(config, exported, attack_stage), make, lineage=lineage, replace=replace)


# ------------------------------------------------------------------------------------------- inputs


def _read(inputs: VerifyInputs) -> tuple[Stage, Stage]:
    return artifact.read(inputs.exported, ("exported",)), artifact.read(inputs.attack_set, ("attack-set",))


def _plan(config: Mapping[str, Any], exported: Stage, attacks: Stage) -> Plan:
    inputs = {"exported": exported.identity, "attack-set": attacks.identity}
    return Plan("verified", preprocess_parity.decided(config), int(config["seed"]), exported.data, inputs)


def _check_batches(exported: Stage, config: Mapping[str, Any]) -> None:
    """An engine takes the numbers of images that it was built for; others are refused before anything runs."""
    if targets.get(exported.config["target"]).any_batch or "batch" not in exported.config:
        return
    low, high = exported.config["batch"]["min"], exported.config["batch"]["max"]
    latency = config["latency"]
    asked = [("batch_size", config["batch_size"]), ("latency.batch_size", latency["batch_size"])]
    for name, size in [*asked, *(("latency.sweep", size) for size in latency.get("sweep") or ())]:
        if not low <= size <= high:
            raise CompressError(
                f"{exported.path}: built for {low} to {high} images a call, {name} is {size}; give --set {name}=N "
                f"within that, or export with --batch MIN:OPT:MAX"
            )


def _check_compatible(exported: Stage, attacks: AttackSet, config: Mapping[str, Any]) -> None:
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
    made_for, asked = attacks.about["threat"], config["threat"]
    if (made_for["norm"], attacks.eps) != (asked["norm"], Fraction(asked["eps"])):
        raise CompressError(
            f"{attacks.stage.path}: made for {made_for['norm']} eps {made_for['eps']}, asked for {asked['norm']} eps "
            f"{asked['eps']}; run compress attack with --eps {asked['eps']}"
        )


def _golden(exported: Stage, runner: Runner, attacks: AttackSet) -> "GoldenEvidence | None":
    """The golden handful at the batch size at which the set was made, told at once; None where it is not in the set."""
    place = attacks.place(exported.identity)
    if place is None:
        return None
    batch_size = attacks.about["golden"]["batch_size"][place]
    if batch_size == runner.batch_size:
        evidence = golden.check_golden(runner, attacks.stage, place)
    else:
        with runner.again(batch_size) as other:
            evidence = golden.check_golden(other, attacks.stage, place)
    if evidence is not None:
        say(golden.golden_line(evidence))
    return evidence


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
        "adversarial": np.array([attack.adversarial for attack in free], np.uint8).reshape(len(free), *shape),
        "queries": np.array([attack.queries for attack in free], np.int64).reshape(len(free), shape[0]),
    }


def _evidence(attacks: AttackSet, verdicts: Verdicts, table: Mapping[str, Any]) -> dict[str, Any]:
    """The table with the attack set's images before its own, and what the artifact says of each."""
    return {
        **table,
        "clean": attacks.clean,
        "adversarial": np.concatenate([attacks.adversarial, table["adversarial"]]),
        "predictions": verdicts.all_predictions,
    }


def metrics(predicate: Predicate) -> dict[str, Any]:
    """The few figures that a summary shows."""
    figures = predicate.figures
    return {
        "n": predicate.data.n,
        "clean": figures.clean.value,
        "robust": figures.robust.value if figures.robust else None,
        "upper_bound": figures.upper_bound.value if figures.upper_bound else None,
        "p50_ms": predicate.times.p50_ms,
        "p99_ms": predicate.times.p99_ms,
        "bytes": predicate.artifact.bytes,
        "alarms": predicate.fired,
    }
