"""Substitutes of the stage modules: real stage folders made in no time, so that the chain's own logic is what runs."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compress.cli.execute import execute
from edge.core import artifact

MODULES = {
    "compress.stages.teacher": "teacher",
    "compress.stages.distill": "student",
    "compress.stages.quantize": "quantized",
    "export.stage": "exported",
    "compress.stages.attack": "attack-set",
    "compress.stages.verify": "verified",
}
Call = Callable[[str], "tuple[int, str, str]"]
CLEAN, ROBUST, N = 0.9, 0.5, 200


class Fakes:
    """What was made, in order; `during` is called with each folder while its stage is being made."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.during: Callable[[Path], None] = lambda folder: None

    def functions(self, kind: str) -> "tuple[Callable[..., Any], Callable[..., Any]]":
        """`plan` and `run` of a stage of that kind."""

        def plan(config: Any, inputs: Any) -> artifact.Plan:
            settings = config if isinstance(config, dict) else config.model_dump()
            read = {
                f"{role}-{i}": artifact.read(path).identity
                for role, folders in vars(inputs).items()
                for i, path in enumerate(folders if isinstance(folders, list | tuple) else [folders])
                if path is not None
            }
            data = {"name": settings["data"], "fingerprint": "f" * 8, "split": "s" * 8}
            return artifact.Plan(kind, settings, settings["seed"], data, read)

        def run(config: Any, inputs: Any, out: Path, *, replace: bool = False) -> artifact.Stage:
            def make(work: artifact.Work) -> None:
                self.made.append(out.name)
                first = work.file("started").exists()
                work.file("started").write_text("kept across a kill")
                self.during(out)
                work.add_payload("weights.safetensors").write_bytes(f"{kind} {settings(config)}".encode())
                work.metrics["resumed"] = first
                if kind in ("teacher", "student", "quantized"):
                    work.metrics["test"] = {"n": N, "clean": CLEAN, "robust": ROBUST, "attack": "pgd", "steps": 20}
                if kind == "verified":
                    work.add_record("statement.json").write_text(json.dumps(statement()))

            return artifact.build(out, plan(config, inputs), make, keep=("started",), replace=replace)

        def settings(config: Any) -> str:
            return json.dumps(config if isinstance(config, dict) else config.model_dump(), sort_keys=True)

        return plan, run


def install(monkeypatch: pytest.MonkeyPatch) -> Fakes:
    """Put the substitutes in place of what the chain and the verbs call."""
    fakes = Fakes()
    for name, kind in MODULES.items():
        plan, run = fakes.functions(kind)
        monkeypatch.setattr(f"{name}.plan", plan)
        monkeypatch.setattr(f"{name}.run", run)

    def write(folder: Path, *, require: list[str]) -> Path:
        (folder / "report.html").write_text(f"{len(fakes.made)} stages, {require}")
        return folder / "report.html"

    monkeypatch.setattr("compress.chain.report.write", write)
    return fakes


def figure(value: float) -> dict[str, Any]:
    """Of N images, with an interval of ± 5 points."""
    interval = [round(value - 0.05, 6), round(value + 0.05, 6)]
    return {"value": value, "count": round(value * N), "n": N, "interval": interval, "level": 0.95}


#: What every latency says besides its figures.
TIMED = {
    "scenarios": ["single-stream"],
    "conditions": {
        "clock": "perf_counter_ns",
        "garbage_collector": "frozen and off",
        "affinity": [0, 1],
        "wait": "none",
        "cuda_graph": False,
        "spin_wait": True,
        "load": None,
        "turns": None,
    },
    "asked_again": {"n": 64, "different": 0},
    "memory": {"peak_rss_bytes": 123_000_000, "since": "opening the runtime", "artifacts": 1},
}


def statement() -> dict[str, Any]:
    """A statement of the contract's form."""
    latency = {"batch_size": 1, "n": 20, "inside": "infer", "cv": 0.1, "images_per_s": 900.0, "cold_start_ms": 9.0}
    latency |= {f"{key}_ms": 1.25 for key in ("p50", "p90", "p95", "p99", "mean", "min", "max", "first_inference")}
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "model.onnx", "digest": {"sha256": "a" * 64}}],
        "predicateType": "urn:robust-compress:robustness-statement:2",
        "predicate": {
            "version": 2,
            "nature": "empirical",
            "artifact": {
                "identity": "b" * 64,
                "file": "model.onnx",
                "sha256": "a" * 64,
                "bytes": 96_300,
                "target": "onnx",
                "precision": "int8",
                "executed": True,
            },
            "threat": {"norm": "linf", "eps": "40/255", "grid_radius": 40, "applied_to": "pixels in [0, 1]"},
            "data": {"fingerprint": "f" * 8, "name": "digits", "split": "s" * 8, "n": N},
            "figures": {"clean": figure(CLEAN), "robust": figure(ROBUST), "upper_bound": None, "inconclusive": None},
            "protocol": [
                {"part": part, "what": "attack", "covered": True, "attacks": ["pgd"], "where": "here"}
                for part in "abcdef"
            ],
            "attacks": [],
            "differential": {"count": 0, "n": N},
            "agreement": {
                "clean": {"n": N, "argmax_agreement": 1.0, "max_abs": 0.0},
                "adversarial": {"n": N, "argmax_agreement": 1.0, "max_abs": 0.0},
            },
            "alarms": [],
            "latency": {**latency, **TIMED, "warmup": 2},
            "machine": {"before": {}, "after": {}},
            "runtime": {"name": "onnxruntime", "version": "1", "provider": "CPUExecutionProvider", "threads": 1},
            "batch_size": 64,
            "seed": 0,
            "versions": {},
            "lineage": [],
            "attack_set": {"identity": "d" * 64, "files": {"attack-set.npz": "e" * 64}},
            "verdicts": {"file": "verdicts.npz", "sha256": "0" * 64},
        },
    }


def caller(capsys: pytest.CaptureFixture[str]) -> Call:
    """A function from a command line to its exit code, stdout and stderr, run in this process."""

    def run(line: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = execute(shlex.split(line))
        return code, *capsys.readouterr()

    return run
