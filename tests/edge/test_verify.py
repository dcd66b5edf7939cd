"""The verified stage on linear artifacts, where the exact robust accuracy is a formula; and planted faults."""

import itertools
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from compress.stages import verify
from edge.attacks import checks
from edge.core import artifact
from edge.core.artifact import Stage
from edge.core.errors import CheckFailed, CompressError
from edge.statement import gate, statement, wording
from edge.statement.statement import Statement
from tests.compress.page_reader import Page
from tests.edge import linear
from tests.edge.stages import DATA, EPS, RADIUS, World, config, exported

SCHEMA = json.loads(Path(statement.__file__).with_name("statement.schema.json").read_text())


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.make(tmp_path)


def run(world: World, name: str, attacks: Stage, out: str = "verified", **more: Any) -> tuple[Stage, dict[str, Any]]:
    """The stage and its predicate, which the schema was asked about."""
    inputs = verify.VerifyInputs(exported=world.stages[name].path, attack_set=attacks.path)
    stage = verify.run(config(**more), inputs, world.root / out)
    stated = statement.read_statement(stage.file("statement.json")).as_json()
    jsonschema.Draft202012Validator(SCHEMA).validate(stated)
    return stage, stated["predicate"]


def alarms(predicate: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {alarm["name"]: alarm for alarm in predicate["alarms"]}


# ---------------------------------------------------------------------------------------------- what is stated


def test_figures_are_the_exact_ones(world: World) -> None:
    world.export("onnx", world.twin)
    stage, said = run(world, "onnx", world.attack_set({"onnx": world.twin}))
    right = linear.logits(world.twin, world.clean).argmax(1) == world.labels
    robust = right & (linear.radii(world.twin, world.clean, world.labels).min(1) > RADIUS)
    assert 0 < robust.sum() < right.sum() < len(right)
    assert said["figures"]["clean"]["count"] == right.sum()
    assert said["figures"]["robust"]["count"] == robust.sum()
    assert said["figures"]["upper_bound"] is None and all(part["covered"] for part in said["protocol"])
    assert said["data"] == {**DATA, "n": 30} and said["threat"]["eps"] == EPS
    assert said["batch_size"] == 8 and said["runtime"]["threads"] == 1
    assert not any(alarm["fired"] for alarm in said["alarms"])
    assert stage.metrics["robust"] == robust.mean() and stage.metrics["alarms"] == []


def test_the_statement_names_the_bytes_and_their_origin(world: World) -> None:
    source = world.export("onnx", world.twin)
    stage, said = run(world, "onnx", world.attack_set({"onnx": world.twin}))
    whole = json.loads(stage.file("statement.json").read_text())
    sha256 = artifact.file_sha256(source.file("model.onnx"))
    assert whole["subject"] == [{"name": "model.onnx", "digest": {"sha256": sha256}}]
    assert said["artifact"]["sha256"] == sha256 and said["artifact"]["identity"] == source.identity
    assert said["artifact"]["bytes"] == source.file("model.onnx").stat().st_size
    chain = [("exported", "onnx"), ("quantized", "quantized"), ("student", "student"), ("teacher", "teacher")]
    assert said["lineage"] == [{"stage": kind, "identity": world.stages[name].identity} for kind, name in chain]


def test_the_lineage_ends_where_a_folder_is_gone(world: World) -> None:
    world.export("onnx", world.twin)
    attacks = world.attack_set({"onnx": world.twin})
    world.stages["student"].path.rename(world.root / "elsewhere")
    _, said = run(world, "onnx", attacks)
    assert [entry["stage"] for entry in said["lineage"]] == ["exported", "quantized", "student"]
    assert said["lineage"][-1]["identity"] == world.stages["student"].identity


def test_verdicts_bear_an_independent_check(world: World) -> None:
    world.export("onnx", world.twin)
    attacks = world.attack_set({"onnx": world.twin})
    stage, said = run(world, "onnx", attacks)
    given = np.load(attacks.file("attack-set.npz"))
    found = np.load(stage.file("verdicts.npz"))
    assert found["attacks"].tolist() == [row["name"] for row in said["attacks"]]
    assert found["attacks"][-2:].tolist() == ["square", "rays"]
    np.testing.assert_array_equal(found["index"], given["index"])
    np.testing.assert_array_equal(found["labels"], world.labels)
    predicted = linear.logits(world.twin, world.clean).argmax(1)
    np.testing.assert_array_equal(found["clean_predictions"], predicted)
    candidates = np.concatenate([given["adversarial"], found["adversarial"]])
    for images, row, stated in zip(candidates, found["broken"], said["attacks"], strict=True):
        inside = np.abs(images.astype(int) - world.clean).max((1, 2, 3)) <= RADIUS
        wrong = linear.logits(world.twin, images).argmax(1) != world.labels
        np.testing.assert_array_equal(row, inside & wrong & (predicted == world.labels))
        assert stated["broken"] == row.sum()
        assert stated["robust_accuracy"] == pytest.approx(((predicted == world.labels) & ~row).mean())
        others = found["broken"].sum(0) - row
        assert stated["alone"] == (row & (others == 0)).sum()
    assert found["queries"].shape == (2, 30) and found["queries"].max() <= 60
    assert (found["queries"][:, predicted != world.labels] == 1).all()


def test_an_inadmissible_candidate_never_counts(world: World) -> None:
    world.export("onnx", world.twin)
    far = linear.nearest(world.twin, world.clean, world.labels, 90)
    attacks = world.attack_set({"onnx": world.twin}, images=far)
    _, said = run(world, "onnx", attacks, square_queries=0, decision_queries=0)
    assert (linear.logits(world.twin, far).argmax(1) != world.labels).all()
    assert [row["broken"] for row in said["attacks"]] == [0] * len(said["attacks"])
    assert said["figures"]["upper_bound"]["count"] == said["figures"]["clean"]["count"]
    assert said["differential"]["count"] == 0


def test_the_differential_counts_candidates(world: World) -> None:
    world.export("onnx", world.twin)
    attacks = world.attack_set({"onnx": world.twin})
    _, said = run(world, "onnx", attacks)
    images = np.load(attacks.file("attack-set.npz"))["adversarial"]
    count = 0
    for candidates in images:
        for i, label in enumerate(world.labels):
            student, twin = (
                [linear.logits(w, x[i : i + 1]).argmax(1)[0] == label for x in (world.clean, candidates)]
                for w in (world.student, world.twin)
            )
            count += student == [True, True] and twin == [True, False]
    assert said["differential"] == {"count": count, "n": images.shape[0] * images.shape[1]}
    assert count > 0
    _, said = run(world, "onnx", world.attack_set({"onnx": world.twin}, images=world.clean), "unmoved")
    right = [linear.logits(w, world.clean).argmax(1) == world.labels for w in (world.student, world.twin)]
    assert (right[0] & ~right[1]).any() and said["differential"][
        "count"
    ] == 0  # wrong already when clean: no candidate's


def test_latency_is_of_uint8_images_at_its_own_batch_size(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from edge.runtimes.onnxruntime.runner import OnnxRunner

    seen: list[tuple[int, Any]] = []
    infer = OnnxRunner.infer

    def watched(self: OnnxRunner, x: np.ndarray) -> np.ndarray:
        seen.append((self.batch_size, x.dtype))
        return infer(self, x)

    monkeypatch.setattr(OnnxRunner, "infer", watched)
    world.export("onnx", world.twin)
    stage, said = run(world, "onnx", world.attack_set({"onnx": world.twin}))
    timed = [dtype for size, dtype in seen if size == 1 and dtype == np.uint8]  # the checks ask float32
    first, warm_up, samples, asked_again = 1, 1, 7, 7
    assert len(timed) == first + warm_up + samples + asked_again
    raw = np.load(stage.file("latency.npz"))["samples_ns"]
    assert raw.shape == (7,) and raw.dtype == np.int64 and said["latency"]["n"] == 7
    assert said["latency"]["p50_ms"] == pytest.approx(np.median(raw) / 1e6)
    assert "uint8" in said["latency"]["inside"] and said["latency"]["batch_size"] == 1


def test_the_report_shows_images_that_fell(world: World) -> None:
    world.export("onnx", world.twin)
    stage, _ = run(world, "onnx", world.attack_set({"onnx": world.twin}))
    text = stage.file("report.html").read_text()
    found = np.load(stage.file("verdicts.npz"))
    broken = found["broken"].any(0)
    held = (found["clean_predictions"] == found["labels"]) & ~broken
    assert text.count("data:image/png") == 3 * (min(8, broken.sum()) + min(4, held.sum()))
    assert f"image {1000 + np.flatnonzero(broken)[0]}," in text


def test_the_same_twice_is_the_same_bytes(world: World) -> None:
    world.export("onnx", world.twin)
    attacks = world.attack_set({"onnx": world.twin})
    one, _ = run(world, "onnx", attacks, "one")
    other, _ = run(world, "onnx", attacks, "other")
    assert one.identity == other.identity
    assert one.file("verdicts.npz").read_bytes() == other.file("verdicts.npz").read_bytes()
    inputs = verify.VerifyInputs(exported=world.stages["onnx"].path, attack_set=attacks.path)
    assert verify.plan(config(), inputs).as_dict() == one.manifest["plan"]
    assert set(one.manifest["payload"]) == {"verdicts.npz"}
    assert set(one.manifest["records"]) == {"statement.json", "latency.npz", "evidence.npz", "report.html"}


@pytest.mark.parametrize("budgets", itertools.product([0, 30], [0, 30]))
def test_attacks_of_no_budget_do_not_run(world: World, budgets: tuple[int, int]) -> None:
    world.export("onnx", world.twin)
    square, rays = budgets
    attacks = world.attack_set({"onnx": world.twin})
    stage, said = run(world, "onnx", attacks, square_queries=square, decision_queries=rays)
    ran = [name for name, queries in (("square", square), ("rays", rays)) if queries]
    found = np.load(stage.file("verdicts.npz"))
    assert [row["name"] for row in said["attacks"] if row["source"] == "artifact"] == ran
    assert found["adversarial"].shape == (len(ran), *world.clean.shape) and found["queries"].shape == (len(ran), 30)
    part = said["protocol"][3]
    assert part["covered"] == (len(ran) == 2) == (said["figures"]["robust"] is not None)
    for name in {"square", "rays"} - set(ran):
        assert f"{name} did not run" in part["where"]


def test_a_float_artifact_needs_no_differential_images(world: World) -> None:
    world.export("float", world.student, "student")
    _, said = run(world, "float", world.attack_set({"float": world.student}, models=("student",), twin="student"))
    part = said["protocol"][5]
    assert part["covered"] and part["attacks"] == [] and part["where"].startswith("not applicable")
    assert said["figures"]["robust"] is not None
    assert said["agreement"]["clean"]["argmax_agreement"] == 1


# ---------------------------------------------------------------------------------------------- twins


def test_an_artifact_outside_the_set_is_compared_with_its_own_twin(world: World) -> None:
    world.export("onnx", world.twin)
    world.export("other", world.twin + 1e-4)
    _, said = run(world, "other", world.attack_set({"onnx": world.twin}))
    assert said["agreement"]["clean"]["max_abs"] < 0.01  # the float student's logits are farther away
    student = linear.logits(world.student, world.clean)
    assert np.abs(student - linear.logits(world.twin, world.clean)).max() > 0.1
    uncovered = {part["part"]: part["where"] for part in said["protocol"] if not part["covered"]}
    assert uncovered == {"c": "the attack set does not hold this artifact"}
    assert said["figures"]["robust"] is None and said["figures"]["upper_bound"]["count"] > 0


def test_without_its_twin_nothing_is_compared(world: World) -> None:
    world.export("onnx", world.twin)
    attacks = world.attack_set({}, models=("student",))
    stage, said = run(world, "onnx", attacks)
    assert said["agreement"] is None and "twin disagrees" not in alarms(said)
    uncovered = {part["part"]: part["where"] for part in said["protocol"] if not part["covered"]}
    assert set(uncovered) == {"a", "c", "e", "f"}
    assert uncovered["a"] == uncovered["e"] == "the attack set does not hold the twin of this artifact"
    stated = statement.read_statement(stage.file("statement.json")).as_json()
    (outcome,) = gate.judge_requirements(Statement.of(stated), [gate.parse_requirement("agreement>=0.5")])
    assert not outcome.passed and outcome.got is None and "does not hold the artifact's twin" in outcome.why
    assert "agreement   not measured" in wording.statement_text(Statement.of(stated))
    assert "not measured: no twin in the attack set" in stage.file("report.html").read_text()


def test_an_artifact_that_computes_something_else_than_its_twin(world: World) -> None:
    other = world.twin[[1, 0, 2]]
    world.export("onnx", other)
    attacks = world.attack_set({"onnx": other})
    _, said = run(world, "onnx", attacks)
    alarm, agreement = alarms(said)["twin disagrees"], said["agreement"]
    given = np.load(attacks.file("attack-set.npz"))
    shares = {}
    for side, images in (("clean", world.clean[None]), ("adversarial", given["adversarial"])):
        same = [linear.logits(other, x).argmax(1) == linear.logits(world.twin, x).argmax(1) for x in images]
        shares[side] = float(np.mean(same))
        assert agreement[side]["argmax_agreement"] == pytest.approx(shares[side])
        assert agreement[side]["n"] == np.size(same)
    worst = min(shares, key=lambda side: shares[side])
    assert alarm["fired"] and alarm["count"] == round((1 - shares[worst]) * agreement[worst]["n"])
    assert f"on {worst} images" in alarm["meaning"]
    assert "its classes stand in another order (0 → 1, 1 → 0): then 100.0% of 30" in alarm["meaning"]
    gap = np.abs(linear.logits(other, world.clean) - given["clean_logits"][1]).max()
    assert agreement["clean"]["max_abs"] == pytest.approx(gap, rel=1e-4)


def test_gradient_attacks_that_do_nothing_raise_the_masking_alarm(world: World) -> None:
    world.export("onnx", world.twin)
    stage, said = run(world, "onnx", world.attack_set({"onnx": world.twin}, images=world.clean), square_queries=200)
    found = np.load(stage.file("verdicts.npz"))["broken"]
    alone = int(found[-2:].any(0).sum())
    alarm = alarms(said)["masking"]
    assert not found[:-2].any() and alone > 3
    assert alarm["fired"] and alarm["count"] == alone and alarm["threshold"] == 3
    assert alarm["interval"][0] < alone / 30 < alarm["interval"][1]
    assert said["figures"]["robust"]["count"] == said["figures"]["clean"]["count"] - alone
    assert stage.metrics["alarms"] == ["masking"]
    verdicts = np.load(stage.file("verdicts.npz"))
    first = int(np.flatnonzero(found.any(0))[0])
    of = int(found[-2:, first].argmax())
    shown = Page(stage.file("report.html").read_text()).pictures()
    np.testing.assert_array_equal(shown[0], world.clean[first])
    np.testing.assert_array_equal(shown[1], verdicts["adversarial"][of, first])
    said_of_it = linear.logits(world.twin, verdicts["adversarial"][of, [first]]).argmax(1)[0]
    assert f"adversarial → class {said_of_it}" in Page(stage.file("report.html").read_text()).text


def test_logits_that_vary_from_call_to_call_are_counted(world: World) -> None:
    content = linear.noisy(world.root / "noisy.onnx", world.twin).read_bytes()
    world.stages["onnx"] = exported(world.root / "onnx", content, world.stages["quantized"])
    _, said = run(world, "onnx", world.attack_set({"onnx": world.twin}))
    alarm = alarms(said)["predictions differ between calls"]
    assert alarm["fired"] and alarm["count"] == 30


# ---------------------------------------------------------------------------------------------- refusals


def refused(world: World, attacks: Stage, message: str, kind: type[CompressError] = CompressError, **more: Any) -> None:
    inputs = verify.VerifyInputs(exported=world.stages["onnx"].path, attack_set=attacks.path)
    with pytest.raises(kind, match=message) as fault:
        verify.run(config(**more), inputs, world.root / "verified")
    assert "\n" not in str(fault.value) and type(fault.value) is kind
    assert not (world.root / "verified").exists() and not (world.root / "verified.partial").exists()


def test_what_does_not_fit_together_is_refused(world: World) -> None:
    world.export("onnx", world.twin)
    attacks = world.attack_set({"onnx": world.twin})
    other = {"norm": "linf", "eps": "4/255"}
    refused(world, attacks, "made for linf eps 8/255, asked for linf eps 4/255; run compress attack", threat=other)
    refused(world, attacks, "made for digits, asked for cifar10; give --data digits", data="cifar10")
    refused(world, attacks, "unknown device 'tpu'", device="tpu")
    with pytest.raises(CompressError, match="is a stage of kind attack-set; needed here: exported"):
        verify.run(config(), verify.VerifyInputs(exported=attacks.path, attack_set=attacks.path), world.root / "v")
    assert Fraction(EPS) == Fraction("16/510")
    run(world, "onnx", attacks, threat={"norm": "linf", "eps": "16/510"})


@pytest.mark.parametrize(("key", "what"), [("fingerprint", "another images"), ("split", "another split")])
def test_an_attack_set_of_other_data_is_refused(world: World, key: str, what: str) -> None:
    world.export("onnx", world.twin, data={**DATA, key: "e" * 64})
    refused(world, world.attack_set({"onnx": world.twin}), f"an attack set of {what}")


def test_an_artifact_of_other_classes_or_images_is_refused(world: World) -> None:
    world.export("onnx", np.concatenate([world.twin, world.twin[:1]]))
    refused(world, world.attack_set({"onnx": world.twin}), "of 3 classes, the artifact takes .* and gives 4")
    content = linear.linear(world.root / "m.onnx", world.twin, shape=(1, 2, 8)).read_bytes()
    world.stages["onnx"] = exported(world.root / "wide", content, world.stages["quantized"])
    refused(world, world.attack_set({"onnx": world.twin}), r"the artifact takes \(1, 2, 8\)")


def test_an_artifact_that_cannot_run_here_is_refused_before_it_is_opened(world: World) -> None:
    world.export("onnx", world.twin, target="tensorrt")
    refused(world, world.attack_set({"onnx": world.twin}), "a tensorrt artifact does not run on --device cpu")


def test_a_damaged_artifact_is_refused(world: World) -> None:
    path = world.export("onnx", world.twin).file("model.onnx")
    attacks = world.attack_set({"onnx": world.twin})
    content = bytearray(path.read_bytes())
    content[-20] ^= 4
    path.write_bytes(content)
    refused(world, attacks, r"model\.onnx has sha256")


def test_an_attack_set_of_another_format_is_refused(world: World) -> None:
    world.export("onnx", world.twin)
    refused(
        world,
        world.attack_set({"onnx": world.twin}, format=1),
        "format 1, this version reads format 2; run compress attack again",
    )


def test_logits_that_are_not_finite_fail_the_check(world: World) -> None:
    content = linear.undefined(world.root / "nan.onnx", world.twin).read_bytes()
    world.stages["onnx"] = exported(world.root / "onnx", content, world.stages["quantized"])
    refused(world, world.attack_set({"onnx": world.twin}), "logits are not finite for", CheckFailed)


def test_a_fixed_batch_is_what_the_statement_names(world: World) -> None:
    content = linear.linear(world.root / "fixed.onnx", world.twin, batch=5).read_bytes()
    world.stages["onnx"] = exported(world.root / "onnx", content, world.stages["quantized"])
    _, said = run(world, "onnx", world.attack_set({"onnx": world.twin}))
    assert said["batch_size"] == 5 and said["latency"]["batch_size"] == 5


def test_the_independent_check_is_asked(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were an attack to leave the ball, its images would not count."""
    world.export("onnx", world.twin)
    attacks = world.attack_set({"onnx": world.twin}, images=world.clean)
    monkeypatch.setattr(checks, "admissible", lambda moved, clean, eps: np.zeros(len(clean), bool))
    _, said = run(world, "onnx", attacks, square_queries=200)
    assert all(row["broken"] == 0 for row in said["attacks"])
