"""The attack set's own hashes, and the golden handful: what is chosen, and what is told of an artifact that differs."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge import open_runner
from edge.core import artifact
from edge.core.artifact import Stage
from edge.core.errors import CompressError
from edge.verify import golden, verify
from edge.verify.attack_set import ARRAYS, AttackSet, array_sha256
from tests.edge import linear
from tests.edge.stages import World, config, exported


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.make(tmp_path)


def check(world: World, name: str, attacks: Stage, batch_size: int = 64) -> "dict[str, object] | None":
    with open_runner(world.stages[name].path, batch_size=batch_size) as runner:
        return golden.check_golden(runner, attacks)


def changed(stage: Stage, file: str, name: str, change: "dict[str, np.ndarray]") -> Stage:
    """The stage with arrays of one file put in place of others, its manifest made to fit."""
    path = stage.file(file)
    with np.load(path) as found:
        arrays = {key: found[key] for key in found} | change
    with open(path, "wb") as handle:
        np.savez(handle, **arrays)
    manifest = stage.manifest
    manifest["payload"][file] = {"sha256": artifact.file_sha256(path), "bytes": path.stat().st_size}
    payload = {key: entry["sha256"] for key, entry in manifest["payload"].items()}
    manifest["identity"] = artifact.digest({"plan": manifest["plan"], "payload": payload})
    stage.file("manifest.json").write_text(json.dumps(manifest))
    return artifact.read(stage.path)


def test_logits_that_compare_with_nothing_are_refused(world: World) -> None:
    """Of a set of an older version: NaN would end in the statement's JSON, after all the work."""
    world.export("onnx", world.twin)
    stage = world.attack_set({"onnx": world.twin})
    logits = np.load(stage.file("attack-set.npz"))["clean_logits"].copy()
    logits[-1, 3, 0] = np.nan
    index = json.loads(stage.file("attack-set.json").read_text())
    index["arrays"]["clean_logits"] = array_sha256(logits)
    stage.file("attack-set.json").write_text(json.dumps(index))
    held = {"sha256": artifact.file_sha256(stage.file("attack-set.json"))}
    stage.manifest["payload"]["attack-set.json"] |= held | {"bytes": stage.file("attack-set.json").stat().st_size}
    broken = changed(stage, "attack-set.npz", "clean_logits", {"clean_logits": logits})
    with pytest.raises(CompressError, match=r"gave NaN or infinity for 1 of \d+ images; run compress attack") as fault:
        AttackSet.read(broken)
    assert "\n" not in str(fault.value)


# ---------------------------------------------------------------------------------------------- hashes


@pytest.mark.parametrize("name", ARRAYS)
def test_each_array_is_held_against_its_own_hash(world: World, name: str) -> None:
    world.export("onnx", world.twin)
    stage = world.attack_set({"onnx": world.twin})
    array = np.load(stage.file("attack-set.npz"))[name].copy()
    flat = array.reshape(-1)
    flat[0] = not flat[0] if array.dtype == bool else flat[0] + 1
    broken = changed(stage, "attack-set.npz", name, {name: array})
    with pytest.raises(CompressError, match=rf"{name} in attack-set\.npz has sha256") as fault:
        AttackSet.read(broken)
    assert "\n" not in str(fault.value) and "run compress attack again" in str(fault.value)


def test_a_hash_is_of_type_and_shape_as_well_and_of_no_machine() -> None:
    a = np.arange(6, dtype=np.int32)
    hashes = {array_sha256(x) for x in (a, a.reshape(2, 3), a.astype(np.int64), a[::-1], a.reshape(3, 2))}
    assert len(hashes) == 5
    assert array_sha256(a.astype(">i4")) == array_sha256(a) == array_sha256(np.repeat(a, 2)[::2])


# ---------------------------------------------------------------------------------------------- the handful


def test_the_same_bytes_give_the_same_bits(world: World) -> None:
    world.export("onnx", world.twin)
    found = check(world, "onnx", world.attack_set({"onnx": world.twin}))
    assert found is not None
    # the set's own logits were computed by numpy, in float64
    assert found.verdict in (golden.EQUAL, golden.NEAR) and found.different == []
    assert 0 < found.n <= 32 and found.batch_size == found.expected_at_batch_size == 64


def test_logits_that_moved_and_predictions_that_changed_are_told_apart(world: World) -> None:
    world.export("onnx", world.twin)
    stage = world.attack_set({"onnx": world.twin})
    held = np.load(stage.file("golden.npz"))
    about = json.loads(stage.file("attack-set.json").read_text())

    def with_logits(logits: np.ndarray) -> "dict[str, object]":
        about["golden"]["arrays"]["logits"] = array_sha256(logits)
        stage.file("attack-set.json").write_text(json.dumps(about))
        stage.manifest["payload"]["attack-set.json"]["sha256"] = artifact.file_sha256(stage.file("attack-set.json"))
        found = check(world, "onnx", changed(stage, "golden.npz", "logits", {"logits": logits}))
        assert found is not None
        return found

    with open_runner(world.stages["onnx"].path) as runner:
        exact = runner.infer(held["images"])
    logits = held["logits"].copy()
    logits[2] = exact
    assert with_logits(logits).verdict == golden.EQUAL
    scale = np.abs(exact).max()
    logits[2] = exact + 0.01 * scale  # of every class alike: no prediction moves
    assert with_logits(logits).verdict == golden.NEAR
    logits[2] = exact + 0.2 * scale
    found = with_logits(logits)
    assert found.verdict == golden.FAR and found.max_abs == pytest.approx(0.2 * scale, rel=1e-3)
    logits[2, 1] = exact[1][[1, 2, 0]]
    found = with_logits(logits)
    assert found.verdict == golden.DIFFERENT
    (row,) = found.different
    names = ["clean", *(attack["name"] for attack in about["attacks"])]
    assert row.index == held["index"][1] and row.attack == names[held["attack"][1] + 1]
    assert (row.expected, row.got) == (int(logits[2, 1].argmax()), int(exact[1].argmax()))
    assert f"image {row.index} ({row.attack}): {row.expected} → {row.got}" in golden.golden_line(found)


def test_other_bytes_are_not_in_the_set(world: World) -> None:
    world.export("onnx", world.twin)
    world.export("other", world.twin + 1e-3)
    stage = world.attack_set({"onnx": world.twin})
    assert check(world, "other", stage) is None and check(world, "onnx", stage) is not None


def test_verify_asks_the_handful_first(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.export("onnx", world.twin)
    inputs = verify.VerifyInputs(
        exported=world.stages["onnx"].path, attack_set=world.attack_set({"onnx": world.twin}).path
    )
    verified = verify.run(config(), inputs, world.root / "v")
    said = capsys.readouterr().err
    assert said.startswith("golden check of ") and said.index("golden") < said.index("replay")
    stated = json.loads(verified.file("statement.json").read_text())["predicate"]
    assert stated["golden"]["verdict"] in (golden.EQUAL, golden.NEAR)
    assert stated["golden"]["expected_at_batch_size"] == 64 != config()["batch_size"]


def test_an_artifact_of_other_classes_is_refused(world: World) -> None:
    world.export("onnx", world.twin)
    stage = world.attack_set({"onnx": world.twin})
    about = json.loads(stage.file("attack-set.json").read_text())
    wider = np.concatenate([world.twin, world.twin[:1]])
    world.stages["wide"] = exported(world.root / "wide", linear.linear(world.root / "w.onnx", wider).read_bytes())
    about["models"][2]["sha256"] = world.sha256("wide")
    stage.file("attack-set.json").write_text(json.dumps(about))
    with pytest.raises(CompressError, match=r"of 3 classes, the artifact takes .* and gives 4; use an attack set"):
        check(world, "wide", stage)


@given(
    labels=st.lists(st.integers(0, 24), min_size=1, max_size=80),
    attacks=st.integers(0, 4),
    seed=st.integers(0, 9),
)
@settings(max_examples=60, deadline=None)
def test_what_is_chosen(labels: list[int], attacks: int, seed: int) -> None:
    y = np.array(labels)
    broken = np.random.default_rng(seed).random((attacks, 3, len(y))) < 0.3
    chosen = golden.choose_golden(y, broken)
    assert 0 < len(chosen) <= 32 and len(set(chosen)) == len(chosen)
    clean = [i for a, i in chosen if a == golden.CLEAN]
    assert [y[i] for i in clean] == sorted(set(labels))[:16]
    assert all(i == labels.index(y[i]) for i in clean)
    assert all(broken[a, :, i].any() for a, i in chosen if a != golden.CLEAN)
    of_class = {k: [(a, i) for a, i in chosen if a >= 0 and y[i] == k] for k in set(labels)}
    room = len(chosen) < 32
    for k in sorted(set(labels))[:16]:
        candidates = int(broken[:, :, y == k].any(1).sum())
        assert len(of_class[k]) == candidates if room else len(of_class[k]) <= candidates
