"""Several teachers as one: their mean score, what is refused, and that a student's later stages find them again."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from compress.cli.distill import distill as verb
from compress.config import QuantizeConfig, StudentConfig, TeacherConfig
from compress.folders import load, load_role, numbered
from compress.methods import registry
from compress.networks.base import Ensemble, Features
from compress.stages import distill, quantize, teacher
from compress.training import Guide
from edge.core import artifact
from edge.core.artifact import Stage
from edge.core.errors import CompressError
from tests.compress.tiny_networks import Tiny, batch

SHARED = {"data": "digits", "threat": {"eps": "40/255"}, "precision": "float32"}
BRIEF = {**SHARED, "epochs": 1, "attack": {"steps": 1}, "validate_steps": 1, "test_steps": 1}


def test_scores_are_the_mean_of_the_members() -> None:
    members = [Tiny(3, 1), Tiny(5, 2), Tiny(4, 3)]
    x = batch(members[0])[0].x
    with torch.no_grad():
        found = Ensemble(members).forward_features(x)
        apart = [member.forward_features(x) for member in members]
    for image in range(len(x)):
        scores = [each.logits[image].softmax(0) for each in apart]
        for k in range(3):
            mean = sum(float(score[k]) for score in scores) / 3
            assert float(found.logits[image, k].exp()) == pytest.approx(mean, rel=1e-12)
    assert torch.allclose(found.logits.exp().sum(1), torch.ones(len(x), dtype=torch.float64))
    assert torch.equal(found.pooled, torch.cat([each.pooled for each in apart], 1))
    assert found.pooled.shape == (7, 12) and len(found.stages) == 2
    assert all(torch.equal(a, b) for a, b in zip(found.stages, apart[0].stages, strict=True))


def test_an_ensemble_of_one_or_of_the_same_is_that_network() -> None:
    one = Tiny(3, 1)
    x = batch(one)[0].x
    for members in ([one], [one, one]):
        found = Ensemble(members).forward_features(x)
        torch.testing.assert_close(found.logits, one(x).log_softmax(1))


def test_scores_of_half_precision_members_are_averaged_in_float32() -> None:
    class Half(Tiny):
        def forward_features(self, x: Tensor) -> Features:
            found = super().forward_features(x)
            return Features(found.logits.bfloat16(), found.pooled.bfloat16(), found.stages)

    found = Ensemble([Half(3, 1), Half(3, 2)]).forward_features(batch(Tiny(3, 1))[0].x)
    assert found.logits.dtype == found.pooled.dtype == torch.float32


def test_one_member_without_features_leaves_logits_alone() -> None:
    class Blind(Tiny):
        has_features = False

    assert Ensemble([Tiny(3, 1), Tiny(3, 2)]).has_features and not Ensemble([Tiny(3, 1), Blind(3, 2)]).has_features
    assert not Guide(Ensemble([Tiny(3, 1), Blind(3, 2)])).has_features


def test_an_attack_through_an_ensemble_follows_all_members() -> None:
    members = [Tiny(3, 1), Tiny(3, 2)]
    x = batch(members[0])[0].x.requires_grad_()
    Ensemble(members)(x)[:, 0].sum().backward()
    assert x.grad is not None and bool((x.grad != 0).any())
    assert all(weight.grad is not None for member in members for weight in member.parameters())


def test_a_method_takes_an_ensemble_for_its_teacher() -> None:
    student, members = Tiny(4, 9), [Tiny(3, 1), Tiny(5, 2)]
    given, x_adv = batch(Ensemble(members))
    options = {"projection": "learned"}
    method = registry.build_objective("vgap", options, student, Ensemble(members), [given.x], images=7).to(
        torch.float64
    )
    parts = method.parts(student, given, x_adv)
    mean = torch.stack([member(given.x).softmax(1) for member in members]).mean(0)
    kl = (mean * (mean.log() - student(given.x).log_softmax(1))).sum(1).mean()
    assert float(parts["kl_clean"].detach()) == pytest.approx(float(kl.detach()) / 6)


def test_roles_are_put_in_their_order() -> None:
    roles = ["student", "teacher-10", "teacher-2", "data", "teacher", "clean_teacher", "teacher-x"]
    assert numbered("teacher", roles) == ["teacher", "teacher-2", "teacher-10"]
    assert numbered("clean_teacher", roles) == ["clean_teacher"] and load_role("teacher", {}) is None


# ---------------------------------------------------------------------------------------------- stages


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("teachers")
    for name, model in (("a", "resnet8"), ("b", "cnn")):
        teacher.run(TeacherConfig(**BRIEF, model=model, method="normal"), teacher.TeacherInputs(), folder / name)
    return [folder / "a", folder / "b"]


def config(**changes: object) -> StudentConfig:
    return StudentConfig(**{**BRIEF, "model": "resnet8", "method": "rslad", "teacher_floor": 0, **changes})


@pytest.fixture(scope="module")
def student(teachers: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return distill.run(config(), distill.StudentInputs(teacher=teachers), tmp_path_factory.mktemp("student") / "s")


def test_every_teacher_is_part_of_the_identity_in_its_place(teachers: list[Path], student: Stage) -> None:
    identities = [artifact.read(path).identity for path in teachers]
    plan = student.manifest["plan"]["inputs"]
    assert plan == {"teacher": identities[0], "teacher-2": identities[1]}
    assert [student.input_path(role) for role in plan] == [path.resolve() for path in teachers]
    swapped = distill.plan(config(), distill.StudentInputs(teacher=teachers[::-1])).as_dict()["inputs"]
    assert swapped == {"teacher": identities[1], "teacher-2": identities[0]}
    alone = [
        distill.plan(config(), distill.StudentInputs(teacher=given))
        for given in (teachers[0], teachers[:1], tuple(teachers[:1]))
    ]
    assert alone[0] == alone[1] == alone[2] and alone[0].as_dict()["inputs"] == {"teacher": identities[0]}


def test_the_student_learned_from_both(teachers: list[Path], student: Stage, tmp_path: Path) -> None:
    alone = distill.run(config(), distill.StudentInputs(teacher=teachers[0]), tmp_path / "alone")
    weights = [load(stage).state_dict()["conv1.weight"] for stage in (student, alone)]
    assert not torch.equal(*weights)


def test_fine_tuning_finds_all_teachers_again(teachers: list[Path], student: Stage, tmp_path: Path) -> None:
    settings = QuantizeConfig(**BRIEF, calibration_images=32, batch_size=256)
    plan = quantize.plan(settings, quantize.QuantizeInputs(student=student.path)).as_dict()["inputs"]
    identities = [artifact.read(path).identity for path in teachers]
    assert plan == {"student": student.identity, "teacher": identities[0], "teacher-2": identities[1]}
    elsewhere = quantize.plan(
        settings, quantize.QuantizeInputs(student=student.path, teacher=teachers[::-1])
    ).as_dict()["inputs"]
    assert (elsewhere["teacher"], elsewhere["teacher-2"]) == (identities[1], identities[0])
    stages = {"teacher": artifact.read(teachers[0]), "teacher-2": artifact.read(teachers[1])}
    assert isinstance(load_role("teacher", stages), Ensemble)


def test_what_is_wrong_with_any_teacher_is_one_line(teachers: list[Path], tmp_path: Path) -> None:
    def refused(given: object, **changes: object) -> str:
        with pytest.raises(CompressError) as fault:
            distill.run(config(**changes), distill.StudentInputs(teacher=given), tmp_path / "out")
        assert "\n" not in str(fault.value) and not list(tmp_path.glob("out*"))
        return str(fault.value)

    assert "the same teacher is given twice; name each once" in refused([teachers[0], teachers[0]])
    assert f"{teachers[0]}: " in refused(teachers, teacher_floor=0.99)
    assert "robust accuracy under PGD" in refused(teachers, teacher_floor=0.99)
    assert "needs a teacher; give --teacher FOLDER" in refused([])
    other = tmp_path / "other"
    _made_of_other_images(teachers[1], other)
    assert "made from another images" in refused([teachers[0], other])


def _made_of_other_images(stage: Path, out: Path) -> None:
    """A copy of a stage that says that it was made from other images."""
    shutil.copytree(stage, out)
    manifest = json.loads((out / artifact.MANIFEST).read_text())
    manifest["plan"]["data"]["fingerprint"] = "0" * 64
    hashes = {name: entry["sha256"] for name, entry in manifest["payload"].items()}
    manifest["identity"] = artifact.digest({"plan": manifest["plan"], "payload": hashes})
    (out / artifact.MANIFEST).write_text(json.dumps(manifest))


def test_the_command_line_takes_the_option_more_than_once(teachers: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "s"
    settings = ["epochs=1", "attack.steps=1", "validate_steps=1", "test_steps=1", "precision=float32"]
    args = [option for setting in settings for option in ("--set", setting)]
    named = [option for path in teachers for option in ("--teacher", str(path))]
    result = CliRunner().invoke(
        verb, [*named, "--student", "resnet8", "--method", "rslad", "--allow-non-robust", "--out", str(out), *args]
    )
    assert result.exit_code == 0, result.output
    assert set(artifact.read(out).manifest["lineage"]) == {"teacher", "teacher-2"}
