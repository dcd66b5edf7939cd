"""Stage folders of a run as the report reads them: real manifests and hashes, made-up networks and verdicts."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import beta
from sklearn.datasets import load_digits

from edge.core import artifact
from edge.core.artifact import Plan, Stage, Work
from tests.compress.fake_stages import TIMED

N, EPS, RADIUS = 60, "40/255", 40
DATA = {"name": "digits", "fingerprint": "f" * 64, "split": "5" * 64}
COMMON = {"data": "digits", "threat": {"norm": "linf", "eps": EPS}, "seed": 0}
ATTACKS = {
    "pgd-ce@student": "white-box",
    "pgd-ce@quantized": "white-box",
    "pgd-margin@quantized": "margin",
    "pgd-temperature@quantized": "temperature",
    "bpda@onnx": "bpda",
    "differential@quantized": "differential",
}
GRADIENT_FREE = {"square@onnx": "square", "rays@onnx": "decision"}
PARTS = {
    "a": ("white-box attacks on the twin", "pgd-ce@quantized"),
    "b": ("the float student's adversarial images", "pgd-ce@student"),
    "c": ("BPDA through the artifact", "bpda@onnx"),
    "d": ("attacks without gradients", "square@onnx"),
    "e": ("margin and temperature losses", "pgd-margin@quantized"),
    "f": ("differential images", "differential@quantized"),
}


def build(
    folder: Path, kind: str, config: dict[str, Any], fill: Callable[[Work], None], inputs: dict[str, Stage]
) -> Stage:
    identities = {role: stage.identity for role, stage in inputs.items()}
    plan = Plan(kind, {**COMMON, **config}, 0, DATA, identities)
    return artifact.build(folder, plan, fill, lineage={role: stage.path for role, stage in inputs.items()})


def network(
    folder: Path, kind: str, inputs: dict[str, Stage], *, size: int, clean: float, robust: float, **config: Any
) -> Stage:
    """A teacher, student or quantized stage with eight epochs of history."""

    def fill(work: Work) -> None:
        work.add_payload("weights.safetensors").write_bytes(bytes(size))
        attacked = config.get("method") != "normal"  # the loop measures robustness only of what it attacks
        epochs = [
            {"epoch": e, "loss": 2 / e, "lr": 0.1, "validation_clean": clean * (1 - 0.5 / e), "seconds": 1.5}
            | ({"validation_robust": robust * (1 - 0.8 / e)} if attacked else {})
            for e in range(1, 9)
        ]
        work.add_record("metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in epochs))
        work.metrics = {
            "parameters": size // 4,
            "epochs": 8,
            "best_epoch": 7,
            "test": {"n": 360, "clean": clean, "robust": robust, "attack": "pgd", "steps": 20, "eps": EPS},
        }

    return build(folder, kind, config, fill, inputs)


def exported(folder: Path, model: Stage, *, size: int, precision: str) -> Stage:
    def fill(work: Work) -> None:
        work.add_payload("model.onnx").write_bytes(bytes(size))
        work.metrics = {"bytes": size, "precision": precision, "parameters": 75002}

    return build(folder, "exported", {"target": "onnx"}, fill, {"model": model})


def verdicts(strengths: list[float]) -> dict[str, np.ndarray]:
    """Digits, candidates inside the budget, and verdicts: clean errors at 3 and 41, the rest by chance.

    `strengths`: each model's chance to be broken by an attack.
    """
    rng = np.random.default_rng(1)
    digits = load_digits()
    clean = np.rint(digits.images[:N] * (255 / 16)).astype(np.uint8)[:, None]
    labels = digits.target[:N].astype(np.int64)
    shape = (len(ATTACKS) + len(GRADIENT_FREE), *clean.shape)
    moved = np.clip(clean + RADIUS * rng.choice([-1, 0, 1], size=shape), 0, 255).astype(np.uint8)
    predicted = np.repeat(labels[None], len(strengths), 0)
    predicted[:, [3, 41]] = (predicted[:, [3, 41]] + 1) % 10
    weak = rng.random((len(strengths), N))  # an image is weak or strong under all attacks alike, nearly
    chance = weak[None] + 0.1 * rng.standard_normal((shape[0], len(strengths), N))
    broken = (chance < np.array(strengths)[None, :, None]) | (predicted != labels)
    index = np.arange(1437, 1437 + N)
    return {"clean": clean, "labels": labels, "index": index, "all": moved, "broken": broken, "predicted": predicted}


def attack_set(folder: Path, models: dict[str, Stage], found: dict[str, np.ndarray]) -> Stage:
    described = {
        "format": 1,
        "data": "digits",
        "classes": 10,
        "threat": {"norm": "linf", "eps": EPS, "grid_radius": RADIUS},
        "models": [{"label": label, "identity": stage.identity} for label, stage in models.items()],
        "attacks": [{"name": name, "kind": kind, "source": name.split("@")[1]} for name, kind in ATTACKS.items()],
    }

    def fill(work: Work) -> None:
        kept = {key: found[key] for key in ("clean", "labels", "index")}
        logits = np.eye(10, dtype=np.float32)[found["predicted"]]
        a = len(ATTACKS)
        said = {"predictions": ((found["labels"] + 5 * found["broken"]) % 10)[:a]}
        with open(work.add_payload("attack-set.npz"), "wb") as file:
            np.savez(
                file, adversarial=found["all"][:a], broken=found["broken"][:a], clean_logits=logits, **kept, **said
            )
        work.add_payload("attack-set.json").write_text(json.dumps(described))

    return build(folder, "attack-set", {"steps": 20}, fill, models)


def samples_ns(scale: int) -> np.ndarray:
    return (scale * np.random.default_rng(scale).gamma(40, 0.025, 1000)).astype(np.int64)


def figure(count: int, n: int = N) -> dict[str, Any]:
    low = float(beta.ppf(0.025, count, n - count + 1))
    high = float(beta.ppf(0.975, count + 1, n - count)) if count < n else 1.0
    return {"value": count / n, "count": count, "n": n, "interval": [low, high], "level": 0.95}


def statement(
    file: Stage, found: dict[str, np.ndarray], m: int, lineage: list[Stage], scale: int, missing: str = ""
) -> dict[str, Any]:
    """The statement of model `m`; `missing` names the protocol's parts that were not covered."""
    names = {**ATTACKS, **GRADIENT_FREE}
    right = found["predicted"][m] == found["labels"]
    fell = found["broken"][:, m] & right
    ms = samples_ns(scale) / 1e6
    quantiles = {f"p{q}_ms": float(np.percentile(ms, q)) for q in (50, 90, 95, 99)}
    standing = figure(int((right & ~fell.any(0)).sum()))
    state = {"cpu": "Example CPU 3000", "isa": ["avx2", "avx512_vnni"], "governor": None, "load": [0.4, 0.3, 0.2]}
    digest = file.manifest["payload"]["model.onnx"]
    predicate = {
        "version": 2,
        "nature": "empirical",
        "artifact": {
            "identity": file.identity,
            "file": "model.onnx",
            "sha256": digest["sha256"],
            "bytes": digest["bytes"],
            "target": "onnx",
            "precision": file.metrics["precision"],
            "executed": True,
        },
        "threat": {
            "norm": "linf",
            "eps": EPS,
            "grid_radius": RADIUS,
            "applied_to": "pixels in [0, 1], the model's own input",
        },
        "data": {**DATA, "n": N},
        "figures": {
            "clean": figure(int(right.sum())),
            "robust": None if missing else standing,
            "upper_bound": standing if missing else None,
        },
        "protocol": [
            {"part": part, "what": what, "covered": part not in missing, "attacks": [attack], "where": "this machine"}
            for part, (what, attack) in PARTS.items()
        ],
        "attacks": [
            {
                "name": name,
                "kind": kind,
                "source": name.split("@")[1],
                "parameters": {"steps": 20, "restarts": 2, "seed": 0},
                "where": "torch on the workstation" if name in ATTACKS else "this machine, on the artifact",
                "n": N,
                "broken": int(fell[a].sum()),
                "robust_accuracy": float((right & ~fell[a]).mean()),
                "alone": int((fell[a] & (fell.sum(0) == 1)).sum()),
            }
            for a, (name, kind) in enumerate(names.items())
        ],
        "differential": {"count": 4, "n": N},
        "agreement": {
            "clean": {"n": N, "argmax_agreement": 1.0, "max_abs": 0.0121},
            "adversarial": {"n": N * len(ATTACKS), "argmax_agreement": 0.9972, "max_abs": 0.0345},
        },
        "alarms": [
            {
                "name": "gradient masking",
                "fired": bool(missing),
                "count": 2,
                "threshold": 3,
                "interval": [0.004, 0.11],
                "meaning": "Attacks without gradients broke images that no gradient attack broke.",
            }
        ],
        "latency": {
            "batch_size": 1,
            "n": len(ms),
            "inside": "one infer call, copies included",
            **quantiles,
            "mean_ms": float(ms.mean()),
            "min_ms": float(ms.min()),
            "max_ms": float(ms.max()),
            "cv": float(ms.std() / ms.mean()),
            "images_per_s": float(1000 / ms.mean()),
            "cold_start_ms": 41.2,
            "first_inference_ms": 1.93,
            "warmup": 50,
            **TIMED,
        },
        "machine": {"before": state, "after": {**state, "load": [0.9, 0.4, 0.2]}},
        "runtime": {"name": "onnxruntime", "version": "1.31.1", "provider": "CPUExecutionProvider", "threads": 2},
        "batch_size": 64,
        "seed": 0,
        "versions": {"numpy": "2.1.0", "onnxruntime": "1.31.1"},
        "lineage": [{"stage": stage.kind, "identity": stage.identity} for stage in lineage],
        "attack_set": {"identity": "d" * 64, "files": {"attack-set.npz": "e" * 64}},
        "verdicts": {"file": "verdicts.npz", "sha256": "0" * 64},
    }
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "model.onnx", "digest": {"sha256": digest["sha256"]}}],
        "predicateType": "urn:robust-compress:robustness-statement:2",
        "predicate": predicate,
    }


def verified(
    folder: Path,
    file: Stage,
    candidates: Stage,
    found: dict[str, np.ndarray],
    m: int,
    lineage: list[Stage],
    scale: int,
    missing: str = "",
) -> Stage:
    def fill(work: Work) -> None:
        a = len(ATTACKS)
        with open(work.add_payload("verdicts.npz"), "wb") as out:
            np.savez(
                out,
                index=found["index"],
                labels=found["labels"],
                clean_predictions=found["predicted"][m],
                attacks=np.array([*ATTACKS, *GRADIENT_FREE]),
                broken=found["broken"][:, m],
                adversarial=found["all"][a:],
                queries=np.zeros((2, N), np.int64),
            )
        text = json.dumps(statement(file, found, m, lineage, scale, missing))
        work.add_record("statement.json").write_text(text)
        with open(work.add_record("latency.npz"), "wb") as out:
            np.savez(out, samples_ns=samples_ns(scale))

    return build(folder, "verified", {"device": "cpu"}, fill, {"exported": file, "attack-set": candidates})


def make_run(run: Path, missing: str = "") -> dict[str, Stage]:
    """A whole run below `run`, its stages by folder; `missing` as in `statement`, for the shipped artifact."""
    made: dict[str, Stage] = {}
    teacher = network(
        run / "teacher", "teacher", {}, size=4_800_000, clean=0.98, robust=0.85, model="wrn-10-4", method="pgd-at"
    )
    behind = {"teacher": teacher}
    student = network(
        run / "student", "student", behind, size=300_000, clean=0.97, robust=0.8, model="resnet8", method="vgap"
    )
    normal = network(
        run / "baselines" / "normal",
        "student",
        {},
        size=300_000,
        clean=0.99,
        robust=0.05,
        model="resnet8",
        method="normal",
    )
    rslad = network(
        run / "baselines" / "rslad",
        "student",
        behind,
        size=300_000,
        clean=0.96,
        robust=0.79,
        model="resnet8",
        method="rslad",
    )
    behind = {"student": student, "teacher": teacher}
    quantized = network(run / "quantized", "quantized", behind, size=304_000, clean=0.965, robust=0.795, mode="qat")
    int8 = exported(run / "exported" / "onnx", quantized, size=84_113, precision="int8")
    plain = exported(run / "exported" / "onnx-float", student, size=301_204, precision="float32")
    found = verdicts([0.15, 0.17, 0.18, 0.15])
    models = {"student": student, "quantized": quantized, "onnx": int8, "onnx-float": plain}
    candidates = attack_set(run / "attack-set", models, found)
    made = {"teacher": teacher, "student": student, "baselines/normal": normal, "baselines/rslad": rslad}
    made |= {"quantized": quantized, "exported/onnx": int8, "exported/onnx-float": plain, "attack-set": candidates}
    made["verified/onnx-cpu"] = verified(
        run / "verified" / "onnx-cpu", int8, candidates, found, 2, [int8, quantized, student, teacher], 90_000, missing
    )
    made["verified/onnx-float-cpu"] = verified(
        run / "verified" / "onnx-float-cpu", plain, candidates, found, 3, [plain, student, teacher], 160_000
    )
    return made


def loose_statement(missing: str = "") -> dict[str, Any]:
    """A statement of a file that lies in no folder."""
    manifest = {
        "identity": "1" * 64,
        "plan": {"stage": "exported"},
        "metrics": {"precision": "int8"},
        "payload": {"model.onnx": {"sha256": "2" * 64, "bytes": 84_113}},
    }
    file = Stage(Path("exported"), manifest)
    return statement(file, verdicts([0.2]), 0, [file], 90_000, missing)
