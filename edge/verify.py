"""The verified stage: the artifact's own bytes, executed, attacked, timed, and stated.

Replay of the attack set, Square and a decision-based attack straight at the runtime, agreement with the twin, alarms,
latency. What needs gradients comes with the attack set (`compress.attack`). numpy and one runtime, never torch.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from compress import artifact
from compress.artifact import Plan, Stage, Work
from compress.errors import CompressError
from edge import bench, checks, machine, page, protocol, statement
from edge.ball import Found
from edge.interval import clopper_pearson
from edge.progress import Progress
from edge.rays import rays
from edge.runner import Runner, open_runner
from edge.square import square

MODEL, VERDICTS, STATEMENT, LATENCY = "model.onnx", "verdicts.npz", "statement.json", "latency.npz"
TARGETS_BY_DEVICE = {"cpu": ("onnx",)}
MIN_AGREEMENT = 0.99
FREE_POINTS, FREE_IMAGES = 0.002, 3  # masking: more than the larger of these, by attacks without gradients alone


@dataclass(frozen=True)
class AttackSet:
    """What `compress attack` wrote: images, verdicts, and the models and attacks they belong to."""

    stage: Stage
    about: dict[str, Any]
    clean: np.ndarray
    labels: np.ndarray
    index: np.ndarray
    adversarial: np.ndarray
    predictions: np.ndarray
    broken: np.ndarray
    clean_logits: np.ndarray

    @classmethod
    def read(cls, stage: Stage) -> "AttackSet":
        about = json.loads(stage.file("attack-set.json").read_text())
        with np.load(stage.file("attack-set.npz"), allow_pickle=False) as arrays:
            names = ("clean", "labels", "index", "adversarial", "predictions", "broken", "clean_logits")
            return cls(stage, about, *(arrays[name] for name in names))

    @property
    def student(self) -> int:
        """The place of the float student among the models."""
        return next(m for m, entry in enumerate(self.about["models"]) if entry["role"] == "student")

    def model(self, label: str) -> int:
        return next(m for m, entry in enumerate(self.about["models"]) if entry["label"] == label)

    def entry(self, exported: Stage) -> "dict[str, Any] | None":
        """The artifact's own row, found by identity."""
        rows = self.about["models"]
        return next((dict(row) for row in rows if row["identity"] == exported.identity), None)


@dataclass(frozen=True)
class Verdicts:
    """Everything that was found out about the artifact by executing it."""

    clean_logits: np.ndarray
    repeatable: bool
    predictions: np.ndarray  # of every replayed candidate, int16 (A,N)
    replayed: np.ndarray  # bool (A,N): admissible and misclassified
    free: dict[str, Found]

    def broken(self, labels: np.ndarray) -> np.ndarray:
        """bool (attacks, images), clean errors not counted: replayed attacks first, then those without gradients."""
        right = ~checks.wrong(self.clean_logits, labels)
        return np.array([*self.replayed, *(found.broken for found in self.free.values())], bool) & right


def plan(config: Mapping[str, Any], inputs: Mapping[str, Any]) -> Plan:
    """What decides the result."""
    return _plan(config, *_read(inputs))


def run(config: Mapping[str, Any], inputs: Mapping[str, Any], out: "Path | str", *, replace: bool = False) -> Stage:
    """Verify `inputs["exported"]` with `inputs["attack-set"]` into `out`; `config` as `VerifyConfig.model_dump()`."""
    exported, attack_stage = _read(inputs)
    _executable(exported, config["device"])

    def make(work: Work) -> None:
        attacks = AttackSet.read(attack_stage)
        _compatible(exported, attacks, config)
        before = machine.state()
        with open_runner(exported.path, batch_size=config["batch_size"], threads=config["threads"]) as runner:
            _same_classes(runner, attacks)
            verdicts = _verdicts(runner, attacks, config)
            runtime = {**runner.describe(), "batch_size": runner.batch_size}
        samples, timing = _time(exported, attacks, config)
        predicate = _predicate(exported, attacks, verdicts, config, runtime)
        predicate |= {"latency": timing, "machine": {"before": before, "after": machine.state()}}
        stated = statement.build(predicate)
        _write(work, attacks, verdicts, stated, samples)
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
    for key, what in (("fingerprint", "images"), ("split", "split")):
        if exported.data[key] != attacks.stage.data[key]:
            raise CompressError(
                f"{attacks.stage.path}: an attack set of another {what} ({attacks.stage.data[key]:.12}) than "
                f"{exported.path} ({exported.data[key]:.12}); make one from the same data"
            )
    stated, given = attacks.about["threat"], config["threat"]
    if (stated["norm"], Fraction(stated["eps"])) != (given["norm"], Fraction(given["eps"])):
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


# ------------------------------------------------------------------------------------------- execution


def _verdicts(runner: Runner, attacks: AttackSet, config: Mapping[str, Any]) -> Verdicts:
    """Clean pass twice, every candidate replayed, then the attacks that need no gradient, on the artifact itself."""
    eps = float(Fraction(config["threat"]["eps"]))
    clean = runner.infer(attacks.clean)
    repeatable = bool((runner.infer(attacks.clean) == clean).all())
    predictions = np.empty(attacks.adversarial.shape[:2], np.int16)
    allowed = np.empty(predictions.shape, bool)
    with Progress("replay", len(predictions)) as bar:
        for a, images in enumerate(attacks.adversarial):
            predictions[a] = runner.infer(images).argmax(1)
            allowed[a] = checks.admissible(images, attacks.clean, eps)
            bar.step(1)
    free = {}
    budgets: dict[str, tuple[Callable[..., Found], int]] = {
        "square": (square, config["square_queries"]),
        "rays": (rays, config["decision_queries"]),
    }
    for name, (attack, queries) in budgets.items():
        if queries:
            found = attack(
                runner.infer,
                attacks.clean,
                attacks.labels,
                eps=eps,
                queries=queries,
                seed=config["seed"],
                ids=attacks.index,
            )
            inside = checks.admissible(found.adversarial, attacks.clean, eps)
            confirmed = inside & checks.wrong(runner.infer(found.adversarial), attacks.labels)
            free[name] = Found(found.adversarial, confirmed, found.queries)
    return Verdicts(clean, repeatable, predictions, allowed & (predictions != attacks.labels), free)


def _time(exported: Stage, attacks: AttackSet, config: Mapping[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
    """Latency by a runner of its own, opened at the batch size that is timed."""
    ask = config["latency"]
    with open_runner(exported.path, batch_size=ask["batch_size"], threads=config["threads"]) as runner:
        images = (attacks.clean / np.float32(255)).astype(np.float32)
        samples, first_ms = bench.latency(runner, images, warmup=ask["warmup"], samples=ask["samples"])
        return samples, bench.summary(
            samples,
            batch_size=runner.batch_size,
            warmup=ask["warmup"],
            cold_start_ms=runner.open_ms,
            first_ms=first_ms,
        )


# ------------------------------------------------------------------------------------------- statement


def _predicate(
    exported: Stage, attacks: AttackSet, verdicts: Verdicts, config: Mapping[str, Any], runtime: Mapping[str, Any]
) -> dict[str, Any]:
    labels, entry = attacks.labels, attacks.entry(exported)
    broken, right = verdicts.broken(labels), ~checks.wrong(verdicts.clean_logits, labels)
    standing = int((right & ~broken.any(0)).sum())
    student = attacks.about["models"][attacks.student]["label"]
    parts = protocol.coverage(attacks.about["attacks"], entry, student, list(verdicts.free))
    covered = all(part["covered"] for part in parts)
    worst = statement.figure(standing, len(labels))
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
        "threat": {
            **attacks.about["threat"],
            "applied_to": "the model's own input, pixels in [0, 1] on the 8-bit grid, with no resize or colour "
            "conversion behind it",
        },
        "data": {**exported.data, "n": len(labels)},
        "figures": {
            "clean": statement.figure(int(right.sum()), len(labels)),
            "robust": worst if covered else None,
            "upper_bound": None if covered else worst,
        },
        "protocol": parts,
        "attacks": _attack_rows(attacks, verdicts, broken, right, config),
        "differential": _differential(attacks, verdicts, right, broken),
        "agreement": _agreement(attacks, verdicts, entry),
        "alarms": _alarms(attacks, verdicts, broken, entry),
        "runtime": {key: runtime[key] for key in ("name", "version", "provider", "threads")},
        "batch_size": runtime["batch_size"],
        "seed": config["seed"],
        "versions": artifact.versions(),
        "lineage": _lineage(exported),
    }


def _attack_rows(
    attacks: AttackSet, verdicts: Verdicts, broken: np.ndarray, right: np.ndarray, config: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """One row an attack; `alone` counts the images that no other attack breaks."""
    runs = {"square": "square_queries", "rays": "decision_queries"}
    kinds = {"square": "score-based", "rays": "decision-based"}
    about = [dict(entry) for entry in attacks.about["attacks"]]
    for name in verdicts.free:
        parameters = {"queries": config[runs[name]], "seed": config["seed"]}
        about.append(
            {"name": name, "kind": kinds[name], "source": "artifact", "where": "this device", "parameters": parameters}
        )
    rows = []
    for entry, row in zip(about, broken, strict=True):
        rows.append(
            {
                **{key: entry[key] for key in ("name", "kind", "source", "where", "parameters")},
                "n": len(right),
                "broken": int(row.sum()),
                "robust_accuracy": float((right & ~row).mean()),
                "alone": int((row & (broken.sum(0) == 1)).sum()),
            }
        )
    return rows


def _differential(attacks: AttackSet, verdicts: Verdicts, right: np.ndarray, broken: np.ndarray) -> dict[str, Any]:
    """Images with a candidate that fools the artifact and leaves the float student right."""
    student = attacks.student
    student_right = attacks.clean_logits[student].argmax(1) == attacks.labels
    only = verdicts.replayed & ~attacks.broken[:, student] & right & student_right
    return {"count": int(only.any(0).sum()), "n": len(right)}


def _agreement(attacks: AttackSet, verdicts: Verdicts, entry: "Mapping[str, Any] | None") -> dict[str, Any]:
    """The artifact against its twin: on clean images and on every candidate of the attack set."""
    twin = attacks.model(entry["twin"]) if entry else attacks.student
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


def _alarms(
    attacks: AttackSet, verdicts: Verdicts, broken: np.ndarray, entry: "Mapping[str, Any] | None"
) -> list[dict[str, Any]]:
    n, replayed = len(attacks.labels), len(verdicts.replayed)
    masked = int((broken[replayed:].any(0) & ~broken[:replayed].any(0)).sum())
    limit = max(FREE_POINTS * n, FREE_IMAGES)
    sides = list(_agreement(attacks, verdicts, entry).values())
    compared = sum(side["n"] for side in sides)
    differing = sum(round((1 - side["argmax_agreement"]) * side["n"]) for side in sides)
    return [
        {
            "name": "masking",
            "fired": masked > limit,
            "count": masked,
            "threshold": limit,
            "interval": list(clopper_pearson(masked, n)),
            "meaning": f"{masked} of {n} images fall to attacks without gradients and to no replayed gradient attack",
        },
        {
            "name": "twin disagrees",
            "fired": differing > (1 - MIN_AGREEMENT) * compared,
            "count": differing,
            "threshold": (1 - MIN_AGREEMENT) * compared,
            "interval": None,
            "meaning": "the artifact does not compute what the network that the gradients came from computes: "
            f"{differing} of {compared} predictions differ, on clean and adversarial images",
        },
        {
            "name": "predictions differ between calls",
            "fired": not verdicts.repeatable,
            "count": 0 if verdicts.repeatable else 1,
            "threshold": 0,
            "interval": None,
            "meaning": "two passes over the same clean images gave different logits",
        },
    ]


def _lineage(stage: Stage) -> list[dict[str, str]]:
    """The chain from the artifact back to the teacher, as far as its folders are found unchanged."""
    chain = [{"stage": stage.kind, "identity": stage.identity}]
    for role in ("model", "student", "teacher"):
        identity = stage.manifest["plan"]["inputs"].get(role)
        if identity is None:
            continue
        try:
            above = artifact.read(stage.input_path(role))
        except CompressError:
            above = None
        if above is None or above.identity != identity:
            return [*chain, {"stage": role, "identity": identity}]
        return [*chain, *_lineage(above)]
    return chain


# ------------------------------------------------------------------------------------------- files


def _write(work: Work, attacks: AttackSet, verdicts: Verdicts, stated: dict[str, Any], samples_ns: np.ndarray) -> None:
    free = list(verdicts.free.values())
    images = [found.adversarial for found in free]
    with open(work.add_payload(VERDICTS), "wb") as file:
        np.savez(
            file,
            index=attacks.index,
            labels=attacks.labels,
            clean_predictions=verdicts.clean_logits.argmax(1),
            attacks=np.array([row["name"] for row in stated["predicate"]["attacks"]]),
            broken=verdicts.broken(attacks.labels),
            adversarial=np.array(images, np.uint8).reshape(-1, *attacks.clean.shape),
            queries=np.array([found.queries for found in free], np.int64).reshape(len(free), -1),
        )
    text = json.dumps(stated, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    artifact.write_atomic(work.add_record(STATEMENT), text)
    with open(work.add_record(LATENCY), "wb") as file:
        np.savez(file, samples_ns=samples_ns)
    page.write_verified(work.path, stated, samples_ns)
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
