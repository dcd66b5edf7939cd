"""Every artifact that this machine can make of one model, side by side: size, parity, accuracy, latency, state."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from compress import data
from compress.config import Engine, ExportConfig
from compress.networks import is_graph_file
from edge import open_runner
from edge.bench.figures import PairedTurns
from edge.bench.measure import SINGLE, TimingRequest, TimingSubject, measure_latency
from edge.core import artifact, targets
from edge.core.artifact import Stage
from edge.core.errors import CompressError
from edge.core.progress import say
from edge.core.proportions import clopper_pearson
from edge.runtimes.runner import BATCH_SIZE, Runner
from edge.statement.statement import as_json
from edge.statement.timing import LatencyFigures
from export import stage

TABLE = "candidates.json"
GRAPH = "compared is the graph that it is built from"
VALIDATION_IMAGES = 1000
WARMUP, SAMPLES = 50, 400


@dataclass
class Candidate:
    """One candidate. `state`: executed here, built but not run, untested (an engine is yet to be built), or failed.

    `why` says it in words where something is missing. `latency` is that of single queries, as in a statement.
    """

    name: str
    target: str
    precision: str
    state: str = "failed"
    why: str = ""
    exported: "Stage | None" = None
    complete: bool = False
    clean: "dict[str, Any] | None" = None
    latency: "LatencyFigures | None" = None
    rounds: list[float] = field(default_factory=list)

    @property
    def metrics(self) -> dict[str, Any]:
        return self.exported.metrics if self.exported else {}

    @property
    def parity(self) -> "dict[str, Any] | None":
        """Of the engine where it was executed, else of the graph that it is built from."""
        return self.metrics.get("engine_parity") or self.metrics.get("parity")

    def as_object(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "target": self.target,
            "precision": self.precision,
            "state": self.state,
            "why": self.why,
            "folder": str(self.exported.path) if self.exported else None,
            "identity": self.exported.identity if self.exported else None,
            "complete_already": self.complete,
            "bytes": self.metrics.get("bytes"),
            "parity": self.parity,
            "clean": self.clean,
            "latency": as_json(self.latency),
        }


@dataclass(frozen=True)
class CandidateTable:
    """All rows in the order of the targets, and what is to be said below them."""

    folder: Path
    rows: tuple[Candidate, ...]
    notes: tuple[str, ...]

    def as_object(self) -> dict[str, Any]:
        return {"folder": str(self.folder), "rows": [row.as_object() for row in self.rows], "said": list(self.notes)}


def export_candidates(config: ExportConfig, model: "Path | str", out: "Path | str") -> CandidateTable:
    """Export a student or a quantized stage to OUT/TARGET-PRECISION for every target, and measure what runs here.

    Float candidates of a quantized stage are made from the student that its manifest names. What cannot be made is a
    row with its reason; when nothing could be, CompressError. Complete candidates are kept; latency is always measured
    anew, all in turns. Written to OUT/candidates.json as well.
    """
    folder = Path(out)
    if (folder / artifact.MANIFEST).exists():
        raise CompressError(f"{folder}: is a stage itself, candidates are folders in a folder; choose another --out")
    if is_graph_file(model):
        raise CompressError(f"{model}: all candidates are made of a stage; an ONNX file is adopted by --target onnx")
    source = artifact.read(model, ("student", "quantized", "teacher"))
    rows = tried()
    for row in rows:
        say(f"candidate {row.name}")
        place = folder / row.name
        try:
            # INT8 is made from the stage that was named, floats from the one before it
            origin = source if row.precision == "int8" else _float_source(source)
            row.complete = (place / artifact.MANIFEST).is_file()
            row.exported = stage.run(_suited(config, row), stage.ExportInputs(origin.path), place)
        except CompressError as fault:
            row.why = str(fault)
            continue
        if row.metrics["executed"]:
            row.state = "executed"
        elif row.metrics.get("engine") == "deferred":
            row.state, row.why = "untested", f"{GRAPH}; the engine is built on the device that runs it first"
        else:
            row.state, row.why = "built", f"{GRAPH}; {row.metrics.get('status', 'nothing here executes it')}"
    if not any(row.exported for row in rows):
        with contextlib.suppress(OSError):
            folder.rmdir()
        raise CompressError(f"{model}: none of {len(rows)} candidates could be made; the first: {rows[0].why}")
    _measure([row for row in rows if row.state == "executed"], config)
    table = CandidateTable(folder, tuple(rows), tuple(verdicts(rows)))
    artifact.write_atomic(folder / TABLE, json.dumps(table.as_object(), indent=2, ensure_ascii=False) + "\n")
    return table


def tried() -> list[Candidate]:
    """Every candidate, unmade: each target's precisions, INT8 last, as it is compared with those before it."""
    return [
        Candidate(f"{target.name}-{precision}", target.name, precision)
        for target in targets.every()
        for precision in target.candidates
    ]


def _float_source(source: Stage) -> Stage:
    """The stage itself where it is float, else the student that its manifest names."""
    if source.kind != "quantized":
        return source
    path, wanted = source.input_path("student"), source.manifest["plan"]["inputs"]["student"]
    parent = artifact.read(path)
    if parent.identity != wanted:
        raise CompressError(
            f"{path}: is another stage than {source.path} was made from ({parent.identity:.12}, not {wanted:.12}); "
            f"export the right one by itself"
        )
    return parent


def _suited(config: ExportConfig, row: Candidate) -> ExportConfig:
    """The config of one candidate, without what is said to other targets."""
    default = Engine()
    unsaid = {name: getattr(default, name) for name in targets.get(row.target).refuses}
    engine = config.engine.model_copy(update=unsaid)
    return config.model_copy(update={"target": row.target, "precision": row.precision, "engine": engine})


# ----------------------------------------------------------------------------------------------- measurement


def _measure(rows: Sequence[Candidate], config: ExportConfig) -> None:
    """Accuracy on validation images and latency of what was executed; what does not open any more says why."""
    if not rows:
        return
    images, labels = (part[:VALIDATION_IMAGES] for part in data.load_dataset(config.data).part("val"))
    running: list[Candidate] = []
    for row in rows:
        try:
            with _open(row, min(BATCH_SIZE, config.batch.max)) as runner:
                right = int((runner.infer(images).argmax(1) == labels).sum())
        except CompressError as fault:
            row.state, row.why = "built", str(fault)
            continue
        low, high = clopper_pearson(right, len(labels))
        row.clean = {"n": len(labels), "count": right, "value": right / len(labels), "interval": [low, high]}
        running.append(row)
    if not running:
        return
    subjects = [TimingSubject(row.name, partial(_open, row), lambda runner: images) for row in running]
    timed = measure_latency(subjects, TimingRequest(config.batch.min, WARMUP, SAMPLES, seed=config.seed))
    for row, timing in zip(running, timed, strict=True):
        assert isinstance(timing.latency, LatencyFigures)  # single queries are what is asked
        row.latency, row.rounds = timing.latency, timing.rounds[SINGLE]
        if timing.alarm is not None and timing.alarm.fired:
            row.why = timing.alarm.meaning


def _open(row: Candidate, size: int) -> Runner:
    assert row.exported is not None
    return open_runner(row.exported.path, batch_size=size, device=targets.get(row.target).devices[0])


# -------------------------------------------------------------------------------------------------- verdicts


def verdicts(rows: Sequence[Candidate]) -> Iterator[str]:
    """Where INT8 is not worth its accuracy: against FP16 and, where that is made too, float32, a line each."""
    for target in targets.names():
        by_precision = {row.precision: row for row in rows if row.target == target and row.exported}
        for plain in (by_precision.get("fp16"), by_precision.get("float32")):
            if "int8" in by_precision and plain is not None:
                yield from _verdict(by_precision["int8"], plain)


def _verdict(int8: Candidate, plain: Candidate) -> Iterator[str]:
    """Nothing of INT8 that is faster, or smaller where speed was not measured."""
    size = int8.metrics["bytes"] / plain.metrics["bytes"]
    sized = f"{'smaller' if size < 1 else 'not smaller'} than {plain.name} ({size:.2f} × its bytes)"
    if not int8.rounds or not plain.rounds:
        if size >= 1:
            yield f"{int8.name} is {sized}; whether it is faster was not measured here"
        return
    ratio = PairedTurns(int8.rounds, plain.rounds).ratio()
    low, high = ratio["interval"]
    if high < 1:
        return
    timed = f"{ratio['ratio']:.2f} × its time, 95 % interval {low:.2f} to {high:.2f}"
    if size < 1:
        yield f"{int8.name} is {sized}, but not faster ({timed})"
    else:
        both = f"{timed}; {size:.2f} × its bytes"
        yield f"{int8.name} is neither faster nor smaller than {plain.name} ({both}): ship that"
