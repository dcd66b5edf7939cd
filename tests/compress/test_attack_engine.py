"""An attack set of an engine that this machine cannot execute: made from its twin, without hybrid images."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import export.stage
from compress import folders
from compress.config import AttackConfig, ExportConfig, parse
from compress.data import load_dataset
from compress.stages import attack
from edge.core import artifact
from edge.core.artifact import Stage
from edge.runtimes.tensorrt import cuda
from edge.verify import findings, golden
from edge.verify.attack_set import AttackSet

BRIEF = {"data": "digits", "images": 40, "ensemble": "none", "steps": 2, "restarts": 1}


@pytest.fixture(scope="module")
def made(chain: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> tuple[Stage, Stage]:
    """The deferred TensorRT stage of the chain's INT8 twin, and an attack set that names it."""
    root = tmp_path_factory.mktemp("engine")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda, "cuda_device", lambda: None)
        patch.setattr(cuda, "SONAMES", ("libcudart.so.0",))
        patch.setattr(cuda, "_places", lambda: iter(()))
        wanted = parse(ExportConfig, {"data": "digits", "target": "tensorrt", "parity_images": 32}, "test")
        deferred = export.stage.run(wanted, export.stage.ExportInputs(model=chain.quantized), root / "trt")
        inputs = attack.AttackInputs(student=chain.student, quantized=chain.quantized, exported=[deferred.path])
        return deferred, attack.run(parse(AttackConfig, BRIEF, "test"), inputs, root / "a")


def test_its_twin_is_on_the_grid_of_its_runtime(made: tuple[Stage, Stage], chain: SimpleNamespace) -> None:
    deferred, found = made
    about = json.loads(found.file("attack-set.json").read_text())
    rows = {row["label"]: row for row in about["models"]}
    assert list(rows) == ["student", "quantized", "quantized.tensorrt", "trt"]
    assert rows["trt"]["twin"] == "quantized.tensorrt" and rows["trt"]["identity"] == deferred.identity
    assert rows["trt"]["unexecuted"].startswith("no usable NVIDIA GPU here") and "sha256" not in rows["trt"]
    held = AttackSet.read(found)
    from compress.attacks.protocol import AttackedModel

    images = load_dataset("digits").images[held.index]
    twin = AttackedModel("", "twin", "", folders.load(chain.quantized, runtime="tensorrt")).infer(images)
    np.testing.assert_allclose(held.clean_logits[2], twin, atol=1e-5)
    np.testing.assert_array_equal(held.clean_logits[3], held.clean_logits[2])
    assert not np.allclose(held.clean_logits[1], held.clean_logits[2])  # the other runtime's grid


def test_no_attack_claims_to_have_asked_it(made: tuple[Stage, Stage]) -> None:
    _, found = made
    about = json.loads(found.file("attack-set.json").read_text())
    assert {row["source"] for row in about["attacks"]} == {"student", "quantized", "quantized.tensorrt"}
    assert set(found.metrics["clean"]) == {"student", "quantized", "quantized.tensorrt"}
    parts = findings.coverage(
        about["attacks"], itself="trt", twin="quantized.tensorrt", student="student", ran=("square", "rays")
    )
    assert {part.part: part.covered for part in parts} == {
        "a": True,
        "b": True,
        "c": False,
        "d": True,
        "e": True,
        "f": True,
    }
    (hybrid,) = (part for part in parts if part.part == "c")
    assert hybrid.where == "the attack set has no bpda attack on trt"


def test_golden_logits_are_the_twins_and_say_so(made: tuple[Stage, Stage], chain: SimpleNamespace) -> None:
    deferred, found = made
    place = AttackSet.read(found).place(deferred.identity)
    from edge import open_runner

    with open_runner(deferred.file("model.onnx"), batch_size=64) as graph:  # the graph in place of its engine
        checked = golden.check_golden(graph, artifact.read(found.path), place)
    assert checked is not None and checked.expected_from == "twin" and checked.expected_at_batch_size == 64
    assert checked.verdict != golden.DIFFERENT and len(checked.different) <= golden.FEW
    assert checked.max_abs < 0.2 * checked.scale
    assert golden.check_golden(SimpleNamespace(sha256="0" * 64), found) is None  # type: ignore[arg-type]


def test_the_float_student_is_the_twin_of_its_own_engine(
    chain: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "cuda_device", lambda: None)
    monkeypatch.setattr(cuda, "SONAMES", ("libcudart.so.0",))
    monkeypatch.setattr(cuda, "_places", lambda: iter(()))
    wanted = parse(ExportConfig, {"data": "digits", "target": "tensorrt", "parity_images": 32}, "test")
    deferred = export.stage.run(wanted, export.stage.ExportInputs(model=chain.student), tmp_path / "fp16")
    inputs = attack.AttackInputs(student=chain.student, exported=[deferred.path])
    found = attack.run(parse(AttackConfig, {**BRIEF, "images": 10}, "test"), inputs, tmp_path / "a")
    about = json.loads(found.file("attack-set.json").read_text())
    assert [(row["label"], row.get("twin")) for row in about["models"]] == [("student", None), ("fp16", "student")]
