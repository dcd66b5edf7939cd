"""Verification of a TensorRT stage: what is executed is what is stated. Library and GPU are stood in for."""

import ctypes
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from compress import statement_check
from edge.core import artifact
from edge.core.artifact import Plan, Stage, Work
from edge.core.errors import CompressError
from edge.runtimes.tensorrt import library, preflight, recipe, runner
from edge.runtimes.tensorrt.cuda import Cuda
from edge.statement import statement
from edge.verify import verify
from tests.edge import linear
from tests.edge.stages import DATA, World, config, exported
from tests.edge.tensorrt import fake
from tests.edge.tensorrt.parts import ORIN, recipe_of
from tests.edge.test_verify import SCHEMA

BATCH = {"min": 1, "opt": 1, "max": 64}


@pytest.fixture
def world(tmp_path: Path, cudart: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> World:
    """The linear world on a machine whose engines compute the twin."""
    made, found = World.make(tmp_path), fake.library()
    monkeypatch.setenv("ROBUST_COMPRESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fake, "weights", lambda: made.twin)
    monkeypatch.setattr(runner, "Cuda", lambda: Cuda(cudart))
    prepare = runner.TensorRTRunner._prepare
    monkeypatch.setattr(runner.TensorRTRunner, "_prepare", lambda self, cuda_graph: prepare(self, cuda_graph=False))
    monkeypatch.setattr(library, "load_library", lambda target: found)
    fake.BUILT.clear()
    return made


def export(world: World, engine: "bytes | None" = None, about: "dict[str, Any] | None" = None) -> Stage:
    """A TensorRT stage named `trt`, deferred unless an engine is given."""
    model = world.stages["quantized"]
    planned = {"data": "digits", "target": "tensorrt", "batch": BATCH}

    def make(work: Work) -> None:
        linear.linear(work.add_payload("model.onnx"), world.twin)
        work.add_payload(recipe.RECIPE).write_text(recipe_of("tensorrt").text())
        if engine is not None and about is not None:
            work.add_payload(recipe.ENGINE).write_bytes(engine)
            work.add_payload(recipe.SIDECAR).write_text(recipe.sidecar_text(about))
        work.metrics = {"bytes": 1, "precision": "int8", "parameters": 1}

    plan = Plan("exported", planned, 0, DATA, {"model": model.identity})
    world.stages["trt"] = artifact.build(world.root / "trt", plan, make, lineage={"model": model.path})
    return world.stages["trt"]


def verified(world: World, attacks: Stage, out: str = "v", **more: Any) -> Stage:
    inputs = verify.VerifyInputs(exported=world.stages["trt"].path, attack_set=attacks.path)
    return verify.run(config(device="cuda", **more), inputs, world.root / out)


def test_a_deferred_engine_is_what_is_stated_kept_and_checked(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    export(world)
    sha256 = artifact.bytes_sha256(fake.plan())
    monkeypatch.setattr(world, "sha256", lambda name: sha256)  # of the engine that answered when the set was made
    made = verified(world, world.attack_set({"trt": world.twin}))
    stated = statement.read_statement(made.path).as_json()
    jsonschema.Draft202012Validator(SCHEMA).validate(stated)
    said = stated["predicate"]
    assert stated["subject"] == [{"name": "engine.plan", "digest": {"sha256": sha256}}]
    assert made.file("engine.plan").read_bytes() == fake.plan() and "engine.json" in made.manifest["payload"]
    graph = world.stages["trt"].manifest["payload"]["model.onnx"]
    assert said["artifact"]["onnx"] == {"file": "model.onnx", **graph}
    assert said["artifact"]["origin"]["here"] and said["artifact"]["origin"]["built"].startswith("built for Orin")
    assert said["runtime"]["name"] == "tensorrt" and said["runtime"]["provider"] == "Orin"
    assert all(part["covered"] for part in said["protocol"]) and said["golden"]["verdict"] in (
        "equal bits",
        "within tolerance",
    )
    assert len(fake.BUILT) == 1  # for golden images, attacks and latency together
    _, rows = statement_check.check_verified(made.path)
    assert any("engine.plan is the statement's subject" in row.found for row in rows)
    made.file("engine.plan").write_bytes(b"other")
    with pytest.raises(CompressError, match=r"engine.plan: has sha256"):
        statement_check.check_verified(made.path)


def test_hybrid_images_of_another_engine_cover_nothing(world: World) -> None:
    """The set was made with another build of the same graph; no verdict carries over."""
    export(world)
    said = statement.read_statement(verified(world, world.attack_set({"trt": world.twin})).path).as_json()["predicate"]
    (part,) = (part for part in said["protocol"] if part["part"] == "c")
    assert not part["covered"] and part["where"] == "the attack set does not hold this artifact"
    assert said["figures"]["robust"] is None and said["figures"]["upper_bound"] is not None
    assert said["golden"] is None


def test_a_stages_own_engine_that_fits_is_executed_and_not_kept_twice(world: World) -> None:
    engine = fake.plan()
    export(world, engine, recipe.sidecar_of(engine, b"onnx", recipe_of("tensorrt"), fake.library(), ORIN))
    made = verified(world, world.attack_set({"trt": world.twin}))
    assert "engine.plan" not in made.manifest["payload"] and not fake.BUILT
    said = statement.read_statement(made.path).as_json()["predicate"]
    assert not said["artifact"]["origin"]["here"] and said["artifact"]["file"] == "engine.plan"
    statement_check.check_verified(made.path)


def test_an_engine_of_another_version_is_built_anew_and_that_is_said(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = fake.plan("10.9.0")
    export(world, engine, recipe.sidecar_of(engine, b"onnx", recipe_of("tensorrt"), fake.library("10.9.0"), ORIN))
    made = verified(world, world.attack_set({"trt": world.twin}))
    assert (
        statement.read_statement(made.path).as_json()["predicate"]["artifact"]["origin"]["here"]
        and len(fake.BUILT) == 1
    )
    assert preflight.ANEW in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ({"batch_size": 65}, r"trt: built for 1 to 64 images a call, batch_size is 65; give --set batch_size=N"),
        (
            {"latency": {"batch_size": 128, "warmup": 1, "samples": 7}},
            r"trt: built for 1 to 64 images a call, latency\.batch_size is 128; give .* or export with --batch",
        ),
    ],
)
def test_a_batch_outside_the_range_is_refused_before_anything_runs(
    world: World, more: dict[str, Any], line: str
) -> None:
    export(world)
    attacks = world.attack_set({"trt": world.twin})
    with pytest.raises(CompressError, match=line):
        verified(world, attacks, **more)
    assert not fake.BUILT and not (world.root / "v").exists() and not (world.root / "v.partial").exists()


@pytest.mark.parametrize(
    ("target", "device"), [("tensorrt", "cpu"), ("tensorrt-rtx", "jetson"), ("tensorrt-rtx", "cpu")]
)
def test_a_target_is_refused_where_it_does_not_run(world: World, target: str, device: str) -> None:
    content = linear.linear(world.root / "m.onnx", world.twin).read_bytes()

    world.stages["trt"] = exported(world.root / "trt", content, world.stages["quantized"], target=target)
    attacks = world.attack_set({"trt": world.twin})
    inputs = verify.VerifyInputs(exported=world.stages["trt"].path, attack_set=attacks.path)
    with pytest.raises(CompressError, match=f"a {target} artifact does not run on --device {device}; verify it where"):
        verify.run(config(device=device), inputs, world.root / "v")
