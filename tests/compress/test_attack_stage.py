"""The attack set of artifacts without a student: twins from graphs, black boxes, alarms, figures beside the grid."""

import dataclasses
import json
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import export.stage
from compress import data
from compress.attacks import presets, protocol
from compress.cli.execute import execute
from compress.config import AttackConfig, ExportConfig, ImportConfig, VerifyConfig, parse
from compress.data.dataset import Dataset
from compress.stages import attack, teacher_import
from edge import open_runner
from edge.attacks import checks
from edge.core import artifact
from edge.core.artifact import Stage
from edge.core.errors import CompressError
from edge.verify import golden, verify
from edge.verify.attack_set import AttackSet
from tests.compress import graphs

BRIEF = {"data": "digits", "images": 40, "ensemble": "none", "steps": 4, "restarts": 1}
TINY = {"square_queries": 30, "decision_queries": 30, "latency": {"warmup": 1, "samples": 5}}
GREY = "12/255"


def adopted(folder: Path, name: str, content: bytes) -> Stage:
    (folder / f"{name}.onnx").write_bytes(content)
    config = parse(ExportConfig, {"data": "digits"}, "test")
    return export.stage.run(config, export.stage.ExportInputs(model=folder / f"{name}.onnx"), folder / name)


def attacked(folder: Path, *exported: Stage, out: str = "a", **more: Any) -> AttackSet:
    config = parse(AttackConfig, {**BRIEF, "threat": {"eps": GREY}, **more}, "test")
    return AttackSet.read(
        attack.run(config, attack.AttackInputs(exported=[stage.path for stage in exported]), folder / out)
    )


def verified(folder: Path, exported: Stage, attacks: AttackSet, out: str = "v") -> dict[str, Any]:
    """The predicate of the statement."""
    threat = {"eps": attacks.about["threat"]["eps"]}
    config = parse(VerifyConfig, {"data": "digits", "threat": threat, "threads": 1, **TINY}, "test").semantic()
    stage = verify.run(config, verify.VerifyInputs(exported=exported.path, attack_set=attacks.stage.path), folder / out)
    return dict(json.loads(stage.file("statement.json").read_text())["predicate"])


def opaque(scale: float = 1.0) -> bytes:
    """As `linear_digits`, through an operator that no twin knows: all below a diagonal that lies above everything."""
    proto = onnx.load_model_from_string(graphs.linear_digits(scale=scale))
    proto.graph.node[-1].output[0] = "z2"
    proto.graph.node.append(helper.make_node("Trilu", ["z2", "k"], ["y"], upper=0, domain="com.microsoft"))
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    proto.graph.initializer.append(numpy_helper.from_array(np.array(10_000, np.int64), "k"))
    return proto.SerializeToString()


# ---------------------------------------------------------------------------------------------- twins from graphs


def test_a_float_artifact_alone_is_covered_whole(tmp_path: Path) -> None:
    stage = adopted(tmp_path, "e", graphs.linear_digits(scale=20))
    found = attacked(tmp_path, stage, ensemble="quick")
    assert [(m["label"], m["role"]) for m in found.about["models"]] == [("e.graph", "twin"), ("e", "artifact")]
    assert found.about["models"][1]["twin"] == "e.graph" and found.student is None
    kinds = {(entry["kind"], entry["source"]) for entry in found.about["attacks"]}
    on_twin = {(kind, "e.graph") for kind in ("white-box", "margin", "temperature")}
    assert kinds == {*on_twin, ("bpda", "e")}
    assert [a["name"] for a in found.about["attacks"]][:2] == ["apgd-ce@e.graph", "apgd-t@e.graph"]
    said = verified(tmp_path, stage, found)
    parts = {part["part"]: part for part in said["protocol"]}
    assert all(part["covered"] for part in parts.values()) and said["figures"]["robust"] is not None
    assert all(parts[part]["where"].startswith("not applicable: the artifact is a float network") for part in "bf")
    assert said["agreement"]["clean"]["argmax_agreement"] == said["agreement"]["adversarial"]["argmax_agreement"] == 1
    assert said["agreement"]["clean"]["max_abs"] < 1e-4 and said["golden"]["verdict"] == golden.EQUAL
    assert said["differential"] == {"count": 0, "n": 0}


def test_an_int8_artifact_without_its_student_has_an_upper_bound(chain: SimpleNamespace, tmp_path: Path) -> None:
    found = attacked(tmp_path, artifact.read(chain.e), images=20, steps=2)
    said = verified(tmp_path, artifact.read(chain.e), found)
    open_ = {part["part"]: part["where"] for part in said["protocol"] if not part["covered"]}
    assert open_ == dict.fromkeys("bf", "the attack set was made without a float student")
    assert said["figures"]["robust"] is None and said["figures"]["upper_bound"] is not None
    assert said["agreement"]["clean"]["argmax_agreement"] == 1


def test_an_adopted_file_beside_a_student_is_compared_with_it(chain: SimpleNamespace, tmp_path: Path) -> None:
    stage = adopted(tmp_path, "foreign", artifact.read(chain.e).file("model.onnx").read_bytes())
    assert stage.metrics["precision"] == "int8"
    config = parse(AttackConfig, {**BRIEF, "images": 20, "steps": 2}, "test")
    inputs = attack.AttackInputs(student=chain.student, exported=[stage.path])
    found = AttackSet.read(attack.run(config, inputs, tmp_path / "a"))
    assert [m["label"] for m in found.about["models"]] == ["student", "foreign.graph", "foreign"]
    said = verified(tmp_path, stage, found)
    assert all(part["covered"] for part in said["protocol"])
    assert said["protocol"][5]["attacks"] == ["differential@foreign.graph"]


def test_a_float_file_in_the_students_place_covers_an_int8_file(
    chain: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing but two files of one network: the imported one has gradients in torch, so no part is left open."""
    imported = teacher_import.run(
        parse(ImportConfig, {"source": str(chain.ef / "model.onnx"), "data": "digits", "check": False}, "test"),
        teacher_import.ImportInputs(),
        tmp_path / "float",
    )
    stage = adopted(tmp_path, "foreign", artifact.read(chain.e).file("model.onnx").read_bytes())
    config = parse(AttackConfig, {**BRIEF, "images": 20, "steps": 2}, "test")
    inputs = attack.AttackInputs(student=imported.path, exported=[stage.path])
    made = AttackSet.read(attack.run(config, inputs, tmp_path / "a"))
    assert next((m["label"], m["role"]) for m in made.about["models"]) == ("teacher", "student")
    assert "is an ONNX graph, attacked by the gradients of its operators in torch" in capsys.readouterr().err
    assert {entry["source"] for entry in made.about["attacks"]} == {"teacher", "foreign.graph", "foreign"}
    torch_student = AttackSet.read(attack.run(config, attack.AttackInputs(student=chain.student), tmp_path / "t"))
    np.testing.assert_allclose(made.clean_logits[0], torch_student.clean_logits[0], atol=1e-4)
    said = verified(tmp_path, stage, made)
    assert all(part["covered"] for part in said["protocol"]) and said["figures"]["robust"] is not None


def test_an_imported_file_without_gradients_or_in_int8_is_no_float_network(
    chain: SimpleNamespace, tmp_path: Path
) -> None:
    for name, content, fault in (
        (
            "opaque",
            opaque(),
            "operator com.microsoft.Trilu; it has no twin: without gradients no image can be made on it; leave it",
        ),
        ("int8", artifact.read(chain.e).file("model.onnx").read_bytes(), "is a quantized graph, no float network"),
    ):
        (tmp_path / f"{name}.onnx").write_bytes(content)
        settled = {"source": str(tmp_path / f"{name}.onnx"), "data": "digits", "check": False}
        inputs = teacher_import.ImportInputs()
        stage = teacher_import.run(parse(ImportConfig, settled, "test"), inputs, tmp_path / name)
        refused(tmp_path, fault, attack.AttackInputs(stage.path))


def test_an_operator_without_a_gradient_leaves_a_black_box(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage = adopted(tmp_path, "e", opaque())
    found = attacked(tmp_path, stage, threat={"eps": "60/255"})
    assert "no gradient is known of its operator com.microsoft.Trilu" in capsys.readouterr().err
    (model,) = found.about["models"]
    assert model["twin"] is None and "Trilu" in model["no_twin"] and found.about["attacks"] == []
    assert found.adversarial.shape == (0, 40, 1, 8, 8) and found.broken.shape == (0, 1, 40)
    said = verified(tmp_path, stage, found)
    assert said["figures"]["robust"] is None and said["figures"]["upper_bound"] is not None
    parts = {part["part"]: part for part in said["protocol"]}
    assert [part for part in parts if parts[part]["covered"]] == ["d"]
    assert all("Trilu" in parts[part]["where"] for part in "ace") and said["agreement"] is None
    assert [row["name"] for row in said["attacks"]] == ["square", "rays"]
    masking = next(alarm for alarm in said["alarms"] if alarm["name"] == "masking")
    assert masking["count"] > masking["threshold"] and not masking["fired"], "no gradient was asked, none is masked"


def test_a_twin_that_overflows_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Half precision that a processor computes in float32: the twin overflows as the graph says, the file does not."""
    proto = onnx.load_model_from_string(graphs.linear_digits())
    proto.graph.node[-1].output[0] = "m"
    proto.graph.node.extend(
        [
            helper.make_node("Cast", ["m"], ["h"], to=10),
            helper.make_node("Mul", ["h", "up"], ["h1"]),
            helper.make_node("Mul", ["h1", "up"], ["h2"]),
            helper.make_node("Mul", ["h2", "down"], ["h3"]),
            helper.make_node("Cast", ["h3"], ["y"], to=1),
        ]
    )
    constants = {"up": np.float16(3e4), "down": np.float16(1e-7)}
    proto.graph.initializer.extend(numpy_helper.from_array(np.array(v), name) for name, v in constants.items())
    found = attacked(tmp_path, adopted(tmp_path, "e", proto.SerializeToString()))
    (model,) = found.about["models"]
    assert "rebuilt in torch, it gives NaN or infinity for 40 of 40 images" in model["no_twin"]
    assert "only attacks without gradients reach e" in capsys.readouterr().err


def test_probabilities_are_attacked_through_their_logits(tmp_path: Path) -> None:
    """A softmax that has saturated has no gradient left in float32; the values before it have."""
    stage = adopted(tmp_path, "e", graphs.linear_digits(scale=3000, softmax=True))
    plain = adopted(tmp_path, "plain", graphs.linear_digits(scale=20))
    found, other = attacked(tmp_path, stage), attacked(tmp_path, plain, out="b")
    names = [entry["name"] for entry in found.about["attacks"]]
    ours, theirs = found.broken[:, -1].mean(1), other.broken[:, -1].mean(1)
    assert theirs[names.index("pgd-margin@e.graph")] > 0.2
    assert ours.max() >= theirs.max() - 0.05
    assert (found.clean_logits[0] >= 0).all(), "the twin says what the file says: probabilities"
    np.testing.assert_allclose(found.clean_logits[0], found.clean_logits[1], atol=1e-3)


# ---------------------------------------------------------------------------------------------- what is recorded


def test_candidates_are_on_the_grid_and_their_verdicts_true(tmp_path: Path) -> None:
    stage = adopted(tmp_path, "e", graphs.linear_digits(scale=20))
    found = attacked(tmp_path, stage, ensemble="standard", images=10)
    assert [a["name"].partition("@")[0] for a in found.about["attacks"]][:3] == ["apgd-ce", "apgd-t", "fab-t"]
    assert np.abs(found.adversarial.astype(int) - found.clean).max() == 12 == found.about["threat"]["grid_radius"]
    with open_runner(stage.path) as runner:
        for a, images in enumerate(found.adversarial):
            logits = runner.infer(images)
            np.testing.assert_array_equal(found.predictions[a, 1], logits.argmax(1))
            want = checks.admissible(images, found.clean, 12 / 255) & checks.wrong(logits, found.labels)
            np.testing.assert_array_equal(found.broken[a, 1], want)


def test_the_worst_case_without_rounding_stands_beside_the_grids(tmp_path: Path) -> None:
    """3.9/255: the grid allows 3 levels, floats more; with a linear model the exact float figure is a formula."""
    stage = adopted(tmp_path, "e", graphs.linear_digits())
    found = attacked(tmp_path, stage, ensemble="quick", images=200, threat={"eps": "39/2550"})
    twin, real = found.about["models"]
    figures = twin["float_figures"]
    assert "float_figures" not in real and figures["eps"] == "39/2550"
    proto = onnx.load_model_from_string(stage.file("model.onnx").read_bytes())
    values = {entry.name: numpy_helper.to_array(entry).astype(float) for entry in proto.graph.initializer}
    logits = (found.clean / 255).reshape(200, -1) @ values["w"] + values["b"]
    rows = np.arange(200)
    right = logits.argmax(1) == found.labels

    def standing(eps: float) -> int:
        """No wrong class can be reached, with pixels cut at black and white."""
        x, survives = (found.clean / 255).reshape(200, -1), right.copy()
        for k in range(10):
            way = values["w"][:, [k]].T - values["w"][:, found.labels].T
            moved = np.clip(x + eps * np.sign(way), 0, 1)
            gap = (moved @ values["w"] + values["b"])[rows, k] - (moved @ values["w"] + values["b"])[rows, found.labels]
            survives &= (gap <= 0) | (found.labels == k)
        return int(survives.sum())

    assert figures["clean"]["count"] == right.sum()
    assert standing(3.9 / 255) <= figures["robust"]["count"] <= standing(3.9 / 255) + 2
    assert standing(3 / 255) <= figures["robust on the grid"]["count"] <= standing(3 / 255) + 2
    assert figures["robust"]["count"] < figures["robust on the grid"]["count"]
    low, high = figures["robust"]["interval"]
    assert low < figures["robust"]["value"] < high


def test_a_fixed_batch_goes_through_attack_and_verify(tmp_path: Path) -> None:
    fixed = adopted(tmp_path, "fixed", graphs.linear_digits(7, scale=20))
    free = adopted(tmp_path, "free", graphs.linear_digits(scale=20))
    found, other = attacked(tmp_path, fixed), attacked(tmp_path, free, out="b")
    np.testing.assert_array_equal(found.broken[:, 1], other.broken[:, 1])
    assert found.about["golden"]["batch_size"] == [None, 7]
    said = verified(tmp_path, fixed, found)
    assert said["batch_size"] == 7 and said["golden"]["verdict"] == golden.EQUAL
    assert said["figures"] == verified(tmp_path, free, other, "w")["figures"]


def test_the_same_twice_is_the_same_bytes(tmp_path: Path) -> None:
    stage = adopted(tmp_path, "e", graphs.linear_digits(scale=20))
    one, two = (attacked(tmp_path, stage, out=out, ensemble="quick", images=10).stage for out in "ab")
    assert one.identity == two.identity


# ---------------------------------------------------------------------------------------------- alarms and refusals


def test_a_twin_that_disagrees_is_told_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A twin whose first two classes are swapped."""
    from compress.networks.graph import onnx_twin

    stage, build = adopted(tmp_path, "e", graphs.linear_digits(scale=20)), onnx_twin.build_twin
    swapped = onnx.load_model_from_string(graphs.linear_digits(scale=20))
    for entry in swapped.graph.initializer[:2]:
        values = numpy_helper.to_array(entry).copy()
        values[..., [0, 1]] = values[..., [1, 0]]
        entry.CopyFrom(numpy_helper.from_array(values, entry.name))
    monkeypatch.setattr(onnx_twin, "build_twin", lambda content, where: build(swapped.SerializeToString(), where=where))
    said_before: list[str] = []
    run = protocol.Ascent.run
    monkeypatch.setattr(
        protocol.Ascent, "run", lambda *given: (said_before.append(capsys.readouterr().err), run(*given))[1]
    )
    found = attacked(tmp_path, stage)
    assert "ALARM twin disagrees: e does not compute what its twin e.graph computes: " in said_before[0]
    alarm, *saturated = found.about["alarms"]  # logits so far apart that no loss rises on the few images left right
    assert alarm["name"] == "twin disagrees" and alarm["model"] == "e" and alarm["count"] > 0.01 * alarm["n"]
    assert {other["name"] for other in saturated} <= {"loss not rising"}
    assert found.stage.metrics["alarms"] == [alarm["meaning"]]
    stated = {entry["name"] for entry in verified(tmp_path, stage, found)["alarms"] if entry["fired"]}
    assert stated == {"twin disagrees", *(other["name"] for other in saturated)}


def four_times_off(proto: onnx.ModelProto) -> None:
    """The scale of an activation deep in the network, where it is quantized and read again."""
    names = [node.input[1] for node in proto.graph.node if node.op_type == "QuantizeLinear"]
    (entry,) = [entry for entry in proto.graph.initializer if entry.name == names[len(names) // 2]]
    entry.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(entry) / 4, entry.name))


def preprocessed(proto: onnx.ModelProto) -> None:
    """The image scaled to [−1, 1] where [0, 1] was trained on."""
    for node in proto.graph.node:
        node.input[:] = ["scaled" if name == "image" else name for name in node.input]
    constants = {"two": np.array(2, np.float32), "one": np.array(1, np.float32)}
    proto.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    proto.graph.node.insert(0, helper.make_node("Mul", ["image", "two"], ["doubled"]))
    proto.graph.node.insert(1, helper.make_node("Sub", ["doubled", "one"], ["scaled"]))


@pytest.mark.parametrize("plant", [four_times_off, preprocessed])
def test_planted_faults_of_the_file_are_told_at_once(
    chain: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str], plant: Any
) -> None:
    """Of a file that says it was made from this twin."""
    sound = artifact.read(chain.e)
    proto = onnx.load_model_from_string(sound.file("model.onnx").read_bytes())
    plant(proto)
    made = sound.manifest["plan"]
    plan = artifact.Plan("exported", made["config"], made["seed"], made["data"], made["inputs"])

    def make(work: artifact.Work) -> None:
        work.add_payload("model.onnx").write_bytes(proto.SerializeToString())
        work.metrics = sound.metrics

    planted = artifact.build(tmp_path / "planted", plan, make)
    config = parse(AttackConfig, {**BRIEF, "images": 60, "steps": 1}, "test")
    inputs = attack.AttackInputs(student=chain.student, quantized=chain.quantized, exported=[chain.e, planted.path])
    found = AttackSet.read(attack.run(config, inputs, tmp_path / "a"))
    assert [(alarm["name"], alarm["model"]) for alarm in found.about["alarms"]] == [("twin disagrees", "planted")]
    assert "ALARM twin disagrees: planted does not compute what its twin quantized computes" in capsys.readouterr().err


@pytest.mark.parametrize(("n", "share", "fires"), [(60, 57 / 60, False), (60, 56 / 60, True), (1000, 0.99, False)])
def test_a_few_roundings_near_a_boundary_are_no_other_network(n: int, share: float, fires: bool) -> None:
    """Whichever kind of image they are of."""
    for side, other in (("clean", "adversarial"), ("adversarial", "clean")):
        found = {side: {"n": n, "argmax_agreement": share}, other: {"n": n, "argmax_agreement": 1.0}}
        alarm = protocol.twin_alarm("e", "q", found)
        assert (alarm is not None) == fires and (alarm is None or f"on {side} images" in alarm["meaning"])


def refused(folder: Path, message: str, inputs: attack.AttackInputs, **more: Any) -> None:
    config = parse(AttackConfig, {**BRIEF, **more}, "test")
    with pytest.raises(CompressError, match=message) as fault:
        attack.run(config, inputs, folder / "a")
    assert "\n" not in str(fault.value)
    assert not (folder / "a").exists() and not (folder / "a.partial").exists()


def test_a_sample_with_other_shares_of_the_classes_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    labels = np.array([0] * 90 + [1] * 10)
    lopsided = Dataset("lopsided", np.zeros((100, 1, 2, 2), np.uint8), labels, {"test": np.arange(100)}, ("a", "b"))
    assert np.bincount(labels[attack.chosen_test_images(lopsided, 20)]).tolist() == [10, 10]
    assert "equally many of each class: the largest class is 50.0% of them and 90.0% of all" in capsys.readouterr().err
    assert len(attack.chosen_test_images(lopsided, None)) == 100 and capsys.readouterr().err == ""
    even = dataclasses.replace(lopsided, labels=np.arange(100) % 2)
    attack.chosen_test_images(even, 20)
    assert capsys.readouterr().err == ""


def test_what_cannot_be_attacked_is_refused_in_one_line(chain: SimpleNamespace, tmp_path: Path) -> None:
    stage = adopted(tmp_path, "e", graphs.linear_digits())
    refused(tmp_path, "nothing to attack: no student, no teacher", attack.AttackInputs())
    refused(tmp_path, "given without its student", attack.AttackInputs(None, chain.quantized, [stage.path]))
    refused(tmp_path, "made from another model", attack.AttackInputs(chain.teacher, exported=[chain.ef]))
    less = {"eps": "1/510"}
    refused(tmp_path, "less than one grey level", attack.AttackInputs(exported=[stage.path]), threat=less)


def test_the_command_line_takes_a_teacher_as_its_float_network(chain: SimpleNamespace, tmp_path: Path) -> None:
    line = f"attack {chain.teacher} --images 10 --steps 2 --restarts 1 --ensemble none --out {tmp_path / 'a'}"
    assert execute(shlex.split(line)) == 0
    made = artifact.read(tmp_path / "a")
    assert made.config["data"] == "digits" and list(made.metrics["clean"]) == ["teacher"]


def test_the_command_line_without_a_student(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage = adopted(tmp_path, "e", graphs.linear_digits())
    line = f"attack --exported {stage.path} --images 10 --steps 2 --restarts 1 --ensemble none --out {tmp_path / 'a'}"
    assert execute(shlex.split(line)) == 0
    assert artifact.read(tmp_path / "a").config["ensemble"] == "none"
    capsys.readouterr()
    assert execute(shlex.split(f"attack --out {tmp_path / 'b'}")) == 2
    assert "nothing to attack: give the folder of a student" in capsys.readouterr().err


def test_the_ensembles_have_no_attack_that_asks_for_no_gradient(tmp_path: Path) -> None:
    """Square belongs to the artifact itself, where `compress verify` runs it."""
    assert [one.name for one in presets.attack_plan("standard", 10)] == ["apgd-ce", "apgd-t", "fab-t", "square"]
    stage = adopted(tmp_path, "e", graphs.linear_digits())
    found = attacked(tmp_path, stage, ensemble="quick", images=10)
    assert not any("square" in entry["name"] for entry in found.about["attacks"])
    assert data.load_dataset("digits").name == found.about["data"]
