"""Stage folders as the workstation writes them, made by `artifact.build` from linear models."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edge.attacks import checks
from edge.core import artifact
from edge.core.artifact import Plan, Stage, Work
from edge.verify import golden
from edge.verify.attack_set import FORMAT, array_sha256
from tests.edge import linear

DATA = {"name": "digits", "fingerprint": "f" * 64, "split": "5" * 64}
RADIUS, EPS, CLASSES = 8, "8/255", 3


def trained(folder: Path, kind: str, weights: np.ndarray, above: "dict[str, Stage] | None" = None) -> Stage:
    """A teacher, student or quantized stage; its payload is the weights."""
    above = above or {}
    plan = Plan(kind, {"data": "digits"}, 0, DATA, {role: stage.identity for role, stage in above.items()})

    def make(work: Work) -> None:
        work.add_payload("weights.safetensors").write_bytes(weights.tobytes())

    return artifact.build(folder, plan, make, lineage={role: stage.path for role, stage in above.items()})


def exported(
    folder: Path,
    content: bytes,
    model: "Stage | None" = None,
    *,
    target: str = "onnx",
    data: "dict[str, str] | None" = None,
) -> Stage:
    """An exported stage of these bytes, made from `model`."""
    inputs = {"model": model.identity if model else "0" * 64}
    plan = Plan("exported", {"data": "digits", "target": target}, 0, data or DATA, inputs)

    def make(work: Work) -> None:
        work.add_payload("model.onnx").write_bytes(content)
        work.metrics = {"bytes": len(content), "precision": "int8", "parameters": 1}

    return artifact.build(folder, plan, make, lineage={"model": model.path} if model else {})


@dataclass
class World:
    """N grey images, a float student, its twin and an artifact of it, all linear; and the attacks on them."""

    root: Path
    student: np.ndarray
    twin: np.ndarray
    clean: np.ndarray
    labels: np.ndarray
    stages: dict[str, Stage] = field(default_factory=dict)

    @classmethod
    def make(cls, root: Path, n: int = 30) -> "World":
        """The least radii of these images lie on both sides of RADIUS, and some are wrong when clean."""
        rng = np.random.default_rng(7)
        student = linear.balanced(rng, CLASSES)
        twin = student + 0.2 * rng.normal(size=student.shape)
        clean = rng.integers(70, 186, (n, *linear.SHAPE), dtype=np.uint8)
        labels = linear.logits(student, clean).argmax(1)
        labels[:3] = (labels[:3] + 1) % CLASSES
        world = cls(root, student, twin, clean, labels)
        teacher = trained(root / "teacher", "teacher", student)
        world.stages["student"] = trained(root / "student", "student", student, {"teacher": teacher})
        above = {"student": world.stages["student"], "teacher": teacher}
        world.stages["quantized"] = trained(root / "quantized", "quantized", twin, above)
        world.stages["teacher"] = teacher
        return world

    @classmethod
    def deployed(cls, root: Path) -> "World":
        """With `exported`, an artifact that computes the twin, and an `attack-set` that knows it."""
        world = cls.make(root)
        world.export("exported", world.twin)
        world.stages["attack-set"] = world.attack_set({"exported": world.twin})
        return world

    def export(self, name: str, weights: np.ndarray, source: str = "quantized", **more: Any) -> Stage:
        """The artifact `name` that computes `weights`, said to be made from `source`."""
        content = linear.linear(self.root / f"{name}.onnx", weights).read_bytes()
        self.stages[name] = exported(self.root / name, content, self.stages[source], **more)
        return self.stages[name]

    def sha256(self, name: str) -> str:
        """Of the artifact's file."""
        return str(self.stages[name].manifest["payload"]["model.onnx"]["sha256"])

    def attack(self, weights: np.ndarray) -> np.ndarray:
        return linear.nearest(weights, self.clean, self.labels, RADIUS)

    def attack_set(
        self,
        artifacts: "dict[str, np.ndarray]",
        *,
        models: tuple[str, ...] = ("student", "quantized"),
        images: "np.ndarray | None" = None,
        twin: "str | None" = "quantized",
        **about: Any,
    ) -> Stage:
        """An attack set of the student, its twin and `artifacts` (name → weights); `images` instead of attacks."""
        known = {"student": self.student, "quantized": self.twin}
        nets = {name: known[name] for name in models} | artifacts
        rows = [{"label": name, "role": "student" if name == "student" else "twin"} for name in models]
        rows += [
            {"label": name, "role": "artifact", "twin": twin, "sha256": self.sha256(name), "precision": "int8"}
            for name in artifacts
        ]
        rows = [{**row, "identity": self.stages[row["label"]].identity} for row in rows]
        attacks = [(f"pgd-ce@{m}", "white-box", m) for m in models]
        attacks += [(f"pgd-margin@{m}", "margin", m) for m in models]
        attacks += [(f"pgd-temperature@{m}", "temperature", m) for m in models]
        attacks += [(f"differential@{m}", "differential", m) for m in models if m != "student"]
        attacks += [(f"bpda@{name}", "bpda", name) for name in artifacts]
        found = [images if images is not None else self.attack(nets[source]) for _, _, source in attacks]
        said = np.array([[linear.logits(w, x).argmax(1) for w in nets.values()] for x in found], np.int16)
        inside = np.array([checks.admissible(x, self.clean, RADIUS / 255) for x in found])
        arrays = {
            "clean": self.clean,
            "labels": self.labels,
            "index": 1000 + np.arange(len(self.labels)),
            "adversarial": np.stack(found),
            "predictions": said,
            "broken": (said != self.labels) & inside[:, None],
            "clean_logits": np.stack([linear.logits(w, self.clean) for w in nets.values()]).astype(np.float32),
        }
        chosen = golden.choose_golden(self.labels, arrays["broken"])
        attack, place = (np.array(column, np.int64) for column in zip(*chosen, strict=True))
        handful = np.stack([self.clean[i] if a == golden.CLEAN else found[a][i] for a, i in chosen])
        held = {
            "images": handful,
            "labels": self.labels[place],
            "index": arrays["index"][place],
            "attack": attack,
            "logits": np.stack([linear.logits(w, handful) for w in nets.values()]).astype(np.float32),
        }
        text = {
            "format": FORMAT,
            "data": "digits",
            "classes": CLASSES,
            "threat": {"norm": "linf", "eps": EPS, "grid_radius": RADIUS},
            "models": rows,
            "attacks": [
                {"name": name, "kind": kind, "source": source, "parameters": {"steps": 1}, "where": "the workstation"}
                for name, kind, source in attacks
            ],
            "arrays": {name: array_sha256(array) for name, array in arrays.items()},
            "golden": {
                "n": len(handful),
                "batch_size": [64] * len(rows),
                "arrays": {name: array_sha256(array) for name, array in held.items()},
            },
            **about,
        }
        inputs = {name: self.stages[name].identity for name in nets}
        plan = Plan(
            "attack-set",
            {
                "data": "digits",
                "case": artifact.digest(text),
                "images": artifact.bytes_sha256(arrays["adversarial"].tobytes()),
            },
            len(found),
            DATA,
            inputs,
        )

        def make(work: Work) -> None:
            with open(work.add_payload("attack-set.npz"), "wb") as file:
                np.savez(file, **arrays)
            with open(work.add_payload(golden.FILE), "wb") as file:
                np.savez(file, **held)
            work.add_payload("attack-set.json").write_text(json.dumps(text))

        return artifact.build(self.root / "attack-set", plan, make, replace=True)


def config(**more: Any) -> dict[str, Any]:
    """As `VerifyConfig.model_dump()` gives it."""
    return {
        "data": "digits",
        "threat": {"norm": "linf", "eps": EPS},
        "seed": 0,
        "device": "cpu",
        "batch_size": 8,
        "threads": 1,
        "square_queries": 60,
        "decision_queries": 60,
        "latency": {"batch_size": 1, "warmup": 1, "samples": 7},
        **more,
    }
