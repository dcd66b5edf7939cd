"""Every stage of the tiny chain: what it holds, what it loads as, and whom it refuses."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from compress import data
from compress.config import AttackConfig, QuantizeConfig, StudentConfig, TeacherConfig, parse
from compress.networks.base import count_parameters
from compress.stages import attack, distill, load, quantize, teacher
from edge import open_runner
from edge.attacks import checks
from edge.core import artifact
from edge.core.errors import CompressError
from tests.conftest import BRIEF


def test_each_stage_loads_as_what_it_measured(chain: SimpleNamespace) -> None:
    images, labels = data.load_dataset("digits").part("test")
    x = torch.from_numpy(images).float() / 255
    for name in ("teacher", "student", "quantized"):
        stage, model = artifact.read(getattr(chain, name)), load(getattr(chain, name))
        assert not model.training and not any(w.requires_grad for w in model.parameters())
        right = float((model(x).argmax(1).numpy() == labels).mean())
        assert right == pytest.approx(stage.metrics["test"]["clean"], abs=0.003)
        assert stage.metrics["parameters"] == count_parameters(model)
        assert stage.metrics["test"]["robust"] <= stage.metrics["test"]["clean"]


def test_stages_are_chained_by_identity_and_found_by_lineage(chain: SimpleNamespace) -> None:
    student, quantized, exported = (artifact.read(p) for p in (chain.student, chain.quantized, chain.e))
    assert student.manifest["plan"]["inputs"] == {"teacher": artifact.read(chain.teacher).identity}
    assert quantized.manifest["plan"]["inputs"]["student"] == student.identity
    assert exported.input_path("model") == chain.quantized.resolve()
    assert exported.metrics["precision"] == "int8" and artifact.read(chain.ef).metrics["precision"] == "float32"
    assert exported.metrics["bytes"] < artifact.read(chain.ef).metrics["bytes"] / 2


def test_making_a_stage_again_gives_the_same_identity(chain: SimpleNamespace, tmp_path: Path) -> None:
    config = parse(QuantizeConfig, {**BRIEF, "epochs": 1}, "test")
    again = quantize.run(config, quantize.QuantizeInputs(student=chain.student), tmp_path / "q")
    assert again.identity == artifact.read(chain.quantized).identity


def test_the_exported_files_say_what_their_torch_models_say(chain: SimpleNamespace) -> None:
    images, _ = data.load_dataset("digits").part("test")
    x = torch.from_numpy(images).float() / 255
    for file, source, tolerance in ((chain.ef, chain.student, 1e-4), (chain.e, chain.quantized, 0.05)):
        want = load(source)(x).numpy()
        for batch in (1, 7, 64):
            with open_runner(file, batch_size=batch) as runner:
                got = runner.infer(images)
            assert np.abs(got - want).max() <= tolerance * np.abs(want).max()


def test_the_attack_set_holds_admissible_images_and_true_verdicts(chain: SimpleNamespace) -> None:
    stage = artifact.read(chain.a)
    arrays, said = np.load(stage.file("attack-set.npz")), json.loads(stage.file("attack-set.json").read_text())
    clean, labels, found, broken = (arrays[n] for n in ("clean", "labels", "adversarial", "broken"))
    assert len(labels) == 60 and np.bincount(labels).tolist() == [6] * 10
    digits = data.load_dataset("digits")
    assert set(arrays["index"]) <= set(digits.splits["test"]) and (digits.images[arrays["index"]] == clean).all()
    radius = said["threat"]["grid_radius"]
    assert radius == 40 and np.abs(found.astype(int) - clean).max() == radius
    labels_of = {"student": load(chain.student), "quantized": load(chain.quantized)}
    for m, entry in enumerate(said["models"]):
        for a in range(len(said["attacks"])):
            if entry["role"] == "artifact":
                with open_runner(chain.root / entry["label"]) as runner:
                    logits = runner.infer(found[a])
            else:
                logits = labels_of[entry["label"]](torch.from_numpy(found[a]).float() / 255).numpy()
            want = checks.admissible(found[a], clean, 40 / 255) & (logits.argmax(1) != labels)
            assert (broken[a, m] == want).mean() > 0.98
    assert broken.any()


def test_every_gradient_part_of_the_protocol_is_there(chain: SimpleNamespace) -> None:
    said = json.loads(artifact.read(chain.a).file("attack-set.json").read_text())
    kinds = {(entry["kind"], entry["source"]) for entry in said["attacks"]}
    for source in ("student", "quantized"):
        assert {("white-box", source), ("margin", source), ("temperature", source)} <= kinds
    assert {("bpda", "e"), ("bpda", "ef"), ("differential", "quantized")} <= kinds
    twins = {entry["label"]: entry.get("twin") for entry in said["models"]}
    assert twins == {"student": None, "quantized": None, "e": "quantized", "ef": "student"}


def test_a_wrong_attack_budget_would_be_seen() -> None:
    clean = np.full((3, 1, 2, 2), 100, np.uint8)
    moved = clean.copy()
    moved[1, 0, 0, 0] = 141
    assert checks.admissible(moved, clean, 40 / 255).tolist() == [True, False, True]


def test_fewer_images_are_chosen_evenly_over_the_classes() -> None:
    digits = data.load_dataset("digits")
    index = attack.chosen_test_images(digits, 30)
    assert np.bincount(digits.labels[index]).tolist() == [3] * 10
    assert attack.chosen_test_images(digits, None).tolist() == digits.splits["test"].tolist()
    with pytest.raises(CompressError, match="100000 asked for"):
        attack.chosen_test_images(digits, 100_000)


def test_a_method_that_needs_a_teacher_says_so(tmp_path: Path) -> None:
    config = parse(StudentConfig, {**BRIEF, "method": "vgap"}, "test")
    with pytest.raises(CompressError, match="method vgap needs a teacher; give --teacher"):
        distill.run(config, distill.StudentInputs(), tmp_path / "s")
    assert not list(tmp_path.iterdir())


def test_folders_of_different_chains_refuse_each_other(chain: SimpleNamespace, tmp_path: Path) -> None:
    other = tmp_path / "other"
    config = parse(TeacherConfig, {**BRIEF, "epochs": 1, "model": "resnet8", "seed": 5}, "test")
    teacher.run(config, teacher.TeacherInputs(), other)
    attack_config = parse(AttackConfig, {"data": "digits", "images": 10, "steps": 1}, "test")
    with pytest.raises(CompressError, match="made from another student"):
        attack.run(attack_config, attack.AttackInputs(student=other, quantized=chain.quantized), tmp_path / "a")
    with pytest.raises(CompressError, match="made from another model"):
        attack.run(attack_config, attack.AttackInputs(student=chain.student, exported=[chain.e]), tmp_path / "a")
    with pytest.raises(CompressError, match="is a stage of kind exported; needed here: quantized"):
        attack.run(attack_config, attack.AttackInputs(student=chain.student, quantized=chain.e), tmp_path / "a")


def test_a_stage_of_another_split_is_refused(chain: SimpleNamespace, tmp_path: Path) -> None:
    copy = tmp_path / "student"
    shutil.copytree(chain.student, copy)
    path = copy / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["plan"]["data"]["split"] = "0" * 64
    manifest["identity"] = artifact.digest(
        {"plan": manifest["plan"], "payload": {n: e["sha256"] for n, e in manifest["payload"].items()}}
    )
    path.write_text(json.dumps(manifest))
    config = parse(AttackConfig, {"data": "digits", "images": 10, "steps": 1}, "test")
    with pytest.raises(CompressError, match="made from another split"):
        attack.run(config, attack.AttackInputs(student=copy), tmp_path / "a")


def test_weights_of_a_damaged_teacher_never_reach_a_student(chain: SimpleNamespace, tmp_path: Path) -> None:
    copy = tmp_path / "teacher"
    shutil.copytree(chain.teacher, copy)
    weights = bytearray((copy / "weights.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "weights.safetensors").write_bytes(weights)
    config = parse(StudentConfig, {**BRIEF, "method": "vgap"}, "test")
    with pytest.raises(CompressError, match=r"weights\.safetensors has sha256"):
        distill.run(config, distill.StudentInputs(teacher=copy), tmp_path / "s")
    assert not (tmp_path / "s").exists() and not (tmp_path / "s.partial").exists()
