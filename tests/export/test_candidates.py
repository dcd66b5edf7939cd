"""Every candidate of one model: what becomes a row, what is measured, what is said of INT8, what is kept."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from compress import data
from compress.cli.execute import execute
from compress.cli.show import candidate_lines
from compress.config import ExportConfig, parse
from edge import open_runner
from edge.core import artifact, targets
from edge.core.artifact import Stage
from edge.core.errors import CompressError
from export import candidates
from export.candidates import Candidate, verdicts

FEW = {"onnx": ("float32", "int8"), "tensorrt": ("int8",), "torch-tensorrt": ("fp16",)}


def tried(precisions: "dict[str, tuple[str, ...]]") -> Callable[[], list[Candidate]]:
    return lambda: [Candidate(f"{name}-{one}", name, one) for name, several in precisions.items() for one in several]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of four rows, briefly timed."""
    monkeypatch.setattr(candidates, "tried", tried(FEW))
    monkeypatch.setattr(candidates, "WARMUP", 1)
    monkeypatch.setattr(candidates, "SAMPLES", 40)


def config(**given: Any) -> ExportConfig:
    return parse(ExportConfig, {"data": "digits", **given}, "test")


def test_every_target_has_its_candidates() -> None:
    assert list(dict.fromkeys(row.target for row in candidates.tried())) == list(targets.names())
    assert all(target.candidates[-1] == "int8" for target in targets.every())


@pytest.mark.usefixtures("few")
def test_a_quantized_stage_and_its_student(
    chain: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["export", str(chain.quantized), "--all", "--deferred", "--out", str(tmp_path / "all")]
    assert execute([*args, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((tmp_path / "all/candidates.json").read_text())
    rows = {row["name"]: row for row in found["rows"]}
    assert {name: row["state"] for name, row in rows.items()} == {
        "onnx-float32": "executed",
        "onnx-int8": "executed",
        "tensorrt-int8": "untested",
        "torch-tensorrt-fp16": "failed",
    }
    for name in ("onnx-float32", "onnx-int8"):
        row, stage = rows[name], artifact.read(tmp_path / "all" / name)
        assert row["identity"] == stage.identity and row["bytes"] == (stage.path / "model.onnx").stat().st_size
        images, labels = data.load_dataset("digits").part("val")
        with open_runner(stage.path, batch_size=7) as runner:
            right = int((runner.infer(images).argmax(1) == labels).sum())
        assert row["clean"]["n"] == len(labels) and abs(row["clean"]["count"] - right) <= 1
        assert row["latency"]["p50_ms"] > 0 and row["latency"]["n"] >= 40 and row["latency"]["batch_size"] == 1
        assert row["parity"]["passed"] and not row["complete_already"] and not row["why"]
    assert artifact.read(tmp_path / "all/onnx-float32").input_path("model") == chain.student.resolve()
    assert rows["onnx-float32"]["parity"]["max_abs"] < rows["onnx-int8"]["parity"]["max_abs"]
    assert rows["tensorrt-int8"]["clean"] is None and rows["tensorrt-int8"]["latency"] is None
    assert "pip" in rows["torch-tensorrt-fp16"]["why"] and not (tmp_path / "all/torch-tensorrt-fp16").exists()

    made = {name: rows[name]["identity"] for name in rows}
    times = (tmp_path / "all/onnx-int8/manifest.json").stat().st_mtime_ns
    shutil.rmtree(tmp_path / "all/onnx-float32")
    assert execute([*args, "--json"]) == 0
    again = {row["name"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert {name: row["identity"] for name, row in again.items()} == made
    assert again["onnx-int8"]["complete_already"] and not again["onnx-float32"]["complete_already"]
    assert (tmp_path / "all/onnx-int8/manifest.json").stat().st_mtime_ns == times


@pytest.mark.usefixtures("few")
def test_a_student_has_no_int8_and_a_lost_one_no_float(
    chain: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "tried", tried({"onnx": ("float32", "int8")}))
    table = candidates.export_candidates(config(), chain.student, tmp_path / "s")
    assert [row.state for row in table.rows] == ["executed", "failed"]
    assert "compress quantize" in table.rows[1].why
    text = "\n".join(candidate_lines(table))
    assert "not made  onnx-int8: " in text and "executed" in text

    alone = tmp_path / "alone/quantized"
    shutil.copytree(chain.quantized, alone)
    table = candidates.export_candidates(config(), alone, tmp_path / "q")
    assert [row.state for row in table.rows] == ["failed", "executed"]
    assert str(alone.parent / "student") in table.rows[0].why
    shutil.copytree(chain.teacher, alone.parent / "student")
    table = candidates.export_candidates(config(), alone, tmp_path / "q")
    assert "another stage" in table.rows[0].why and table.rows[1].complete


@pytest.mark.parametrize("kind", ["nothing made", "a stage", "a file", "target", "onnx"])
@pytest.mark.usefixtures("few")
def test_refusals_leave_nothing(
    kind: str,
    chain: SimpleNamespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    model, more = chain.student, []
    if kind == "nothing made":
        monkeypatch.setattr(candidates, "tried", tried({"onnx": ("int8",)}))
    elif kind == "a stage":
        shutil.copytree(chain.ef, out)
    elif kind == "a file":
        model = tmp_path / "no"
    elif kind == "target":
        more = ["--target", "onnx"]
    else:
        model, more = chain.ef / "model.onnx", ["--data", "digits"]
    before = sorted(out.iterdir()) if out.exists() else None
    assert execute(["export", str(model), "--all", "--out", str(out), *more]) == 2
    printed, err = capsys.readouterr()
    assert not printed and "compress: " in err.splitlines()[-1]
    assert (sorted(out.iterdir()) if out.exists() else None) == before


@pytest.mark.usefixtures("few")
def test_an_existing_candidate_made_otherwise_is_a_row(
    chain: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "tried", tried({"onnx": ("float32", "int8")}))
    shutil.copytree(chain.e, tmp_path / "all/onnx-float32")
    table = candidates.export_candidates(config(), chain.quantized, tmp_path / "all")
    assert "made otherwise" in table.rows[0].why and table.rows[1].state == "executed"
    assert artifact.read(tmp_path / "all/onnx-float32").identity == artifact.read(chain.e).identity


def test_what_is_said_of_engines_reaches_only_its_target() -> None:
    asked = config(engine={"compute_capabilities": ["8.6"], "hardware_compatibility": "ampere+", "workspace_mib": 64})
    found = {target: candidates._suited(asked, Candidate("", target, "fp16")).engine for target in targets.names()}
    assert found["tensorrt"].compute_capabilities == [] and found["tensorrt"].hardware_compatibility == "ampere+"
    assert found["tensorrt-rtx"].compute_capabilities == ["8.6"]
    assert found["tensorrt-rtx"].hardware_compatibility == "none"
    assert found["torch-tensorrt"].compute_capabilities == []
    assert {engine.workspace_mib for engine in found.values()} == {64}


def row(precision: str, size: int, rounds: "list[float]", target: str = "onnx") -> Candidate:
    made = Stage(Path("x"), {"metrics": {"bytes": size}})
    return Candidate(f"{target}-{precision}", target, precision, "executed", exported=made, rounds=rounds)


SLOW, FAST = [2.0, 2.1, 1.9, 2.0], [1.0, 1.1, 0.9, 1.0]


@pytest.mark.parametrize(
    ("int8", "others", "want"),
    [
        ((50, FAST), {"fp16": (100, SLOW)}, []),
        ((200, FAST), {"fp16": (100, SLOW)}, []),
        ((200, SLOW), {"fp16": (100, FAST)}, ["neither faster nor smaller than onnx-fp16"]),
        ((200, FAST), {"fp16": (100, FAST)}, ["neither faster nor smaller than onnx-fp16"]),
        ((50, SLOW), {"fp16": (100, FAST)}, ["smaller than onnx-fp16 (0.50 × its bytes), but not faster (2.00 ×"]),
        ((200, SLOW), {"float32": (100, FAST)}, ["neither faster nor smaller than onnx-float32"]),
        ((50, FAST), {"fp16": (100, SLOW), "float32": (200, FAST)}, ["smaller than onnx-float32"]),
        ((200, []), {"fp16": (100, [])}, ["whether it is faster was not measured here"]),
        ((50, []), {"fp16": (100, [])}, []),
        ((50, SLOW), {}, []),
    ],
)
def test_what_is_said_of_int8(int8: Any, others: Any, want: list[str]) -> None:
    rows = [*(row(name, *given) for name, given in others.items()), row("int8", *int8)]
    rows.append(row("int8", 1, SLOW, target="tensorrt"))  # another target's is no reference
    said = list(verdicts(rows))
    assert len(said) == len(want) and all(words in line for words, line in zip(want, said, strict=True))


def test_what_was_not_made_is_not_compared() -> None:
    assert not list(verdicts([Candidate("onnx-fp16", "onnx", "fp16"), row("int8", 10, SLOW)]))


def test_an_artifact_that_no_longer_opens_is_built_not_executed(
    chain: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: Any, **__: Any) -> None:
        raise CompressError("the GPU is gone")

    one = Candidate("onnx-int8", "onnx", "int8", "executed", exported=artifact.read(chain.e))
    monkeypatch.setattr(candidates, "open_runner", gone)
    candidates._measure([one], config())
    assert (one.state, one.why, one.clean, one.latency) == ("built", "the GPU is gone", None, None)
