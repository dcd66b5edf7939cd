"""The second teacher on its way through the program: flags, sections, stages, what is refused."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from compress import chain, config, names
from compress.cli.execute import execute
from compress.config import QuantizeConfig, StudentConfig, TeacherConfig, parse
from compress.config.starter import starter
from compress.stages import distill, network_training, quantize, teacher
from edge.core import artifact
from edge.core.errors import CompressError
from tests.conftest import BRIEF


@pytest.fixture(scope="module")
def natural(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher trained on clean images, for an epoch: not robust."""
    out = tmp_path_factory.mktemp("natural") / "t"
    teacher.run(
        parse(TeacherConfig, {**BRIEF, "epochs": 1, "model": "resnet8", "method": "normal"}, "test"),
        teacher.TeacherInputs(),
        out,
    )
    return out


def student(method: "str | list[str]", **more: Any) -> StudentConfig:
    return parse(StudentConfig, {**BRIEF, "epochs": 1, "model": "resnet8", "method": method, **more}, "test")


def test_student_and_its_int8_twin_learn_from_both_teachers(
    chain: SimpleNamespace, natural: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    real = network_training.training.fit

    def watched(*args: Any, **given: Any) -> Any:
        asked.append((args[2], given["clean_teacher"]))
        return real(*args, **given)

    monkeypatch.setattr(network_training.training, "fit", watched)
    made = distill.run(
        student("mtard"), distill.StudentInputs(teacher=chain.teacher, clean_teacher=natural), tmp_path / "s"
    )
    assert set(made.manifest["plan"]["inputs"]) == {"teacher", "clean_teacher"}
    assert made.input_path("clean_teacher") == natural.resolve()
    assert {"kl_adversarial", "kl_clean"} <= set((made.path / "metrics.jsonl").read_text().split('"'))
    twin = quantize.run(
        parse(QuantizeConfig, {**BRIEF, "epochs": 1}, "test"),
        quantize.QuantizeInputs(student=made.path),
        tmp_path / "q",
    )
    assert twin.manifest["plan"]["inputs"]["clean_teacher"] == artifact.read(natural).identity
    assert len(asked) == 2 and all(None not in pair and pair[0] is not pair[1] for pair in asked)


@pytest.mark.parametrize("method", [*names.CLEAN_TEACHER_METHODS, ["akd2", "vgap"]])
def test_a_method_with_two_teachers_says_what_it_needs(
    method: "str | list[str]", chain: SimpleNamespace, tmp_path: Path
) -> None:
    with pytest.raises(CompressError, match=r"needs a second teacher, trained on clean images; give --clean-teacher"):
        distill.run(student(method), distill.StudentInputs(teacher=chain.teacher), tmp_path / "s")
    with pytest.raises(CompressError, match=r"needs a teacher; give --teacher"):
        distill.run(student(method), distill.StudentInputs(clean_teacher=chain.teacher), tmp_path / "s")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("method", ["rslad", "pgd-at", "vgap"])
def test_a_second_teacher_that_nobody_asks_is_refused(method: str, chain: SimpleNamespace, tmp_path: Path) -> None:
    given = distill.StudentInputs(teacher=chain.teacher, clean_teacher=chain.teacher)
    with pytest.raises(CompressError, match=f"method {method} has no second teacher; leave --clean-teacher out"):
        distill.run(student(method), given, tmp_path / "s")
    assert not list(tmp_path.iterdir())


def test_a_host_that_has_two_teachers_asks_both_whatever_is_added(chain: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(CompressError, match="second teacher"):
        distill.run(
            student("vgap", options={"host": "mtard"}), distill.StudentInputs(teacher=chain.teacher), tmp_path / "s"
        )


def test_teachers_of_other_data_are_refused(chain: SimpleNamespace, natural: Path, tmp_path: Path) -> None:
    """By the same rule as the first one's, with the folder's name."""
    import json
    import shutil

    copy = tmp_path / "other"
    shutil.copytree(natural, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["plan"]["data"]["fingerprint"] = "0" * 64
    payload = {name: entry["sha256"] for name, entry in manifest["payload"].items()}
    manifest["identity"] = artifact.digest({"plan": manifest["plan"], "payload": payload})
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CompressError, match=r"other: made from another images"):
        distill.run(student("mtard"), distill.StudentInputs(teacher=chain.teacher, clean_teacher=copy), tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_the_flag_reaches_the_stage(
    chain: SimpleNamespace, natural: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    brief = "--epochs 1 --batch-size 64 --set attack.steps=1 --set validate_steps=1 --set test_steps=1 --data digits"
    line = f"distill --teacher {chain.teacher} --clean-teacher {natural} --method akd2 {brief} --out {tmp_path / 's'}"
    code = execute([*line.split(), "--allow-non-robust"])
    assert code == 0, capsys.readouterr().err
    assert set(artifact.read(tmp_path / "s").manifest["plan"]["inputs"]) == {"teacher", "clean_teacher"}


# ------------------------------------------------------------------------------------------------ in a run


RUN = Path("r")


def steps(**sections: Any) -> dict[str, chain.Step]:
    return {step.name: step for step in chain.steps(config.parse(config.Run, {"data": "digits", **sections}, "x"), RUN)}


def test_a_run_makes_a_second_teacher_when_a_student_has_one() -> None:
    assert "clean-teacher" not in steps()
    found = steps(baselines={"two": {"method": "mtard"}, "one": {"method": "rslad"}})
    assert list(found)[:2] == ["teacher", "clean-teacher"]
    assert found["clean-teacher"].config.method == "normal" and found["teacher"].config.method == "pgd-at"
    assert found["baselines/two"].inputs == distill.StudentInputs(RUN / "teacher", RUN / "clean-teacher")
    assert found["baselines/one"].inputs == found["student"].inputs == distill.StudentInputs(RUN / "teacher")
    shipped = steps(student={"method": ["akd2", "vgap"]})
    asked = quantize.QuantizeInputs(RUN / "student", RUN / "teacher", RUN / "clean-teacher")
    assert shipped["quantized"].inputs == asked
    assert chain.downstream(list(shipped.values()), "clean-teacher") >= {"student", "quantized"}


def test_its_section_is_trained_or_imported() -> None:
    trained = steps(student={"method": "mtard"}, clean_teacher={"model": "resnet20", "epochs": 7})["clean-teacher"]
    assert (trained.module, trained.config.model, trained.config.epochs) == ("compress.stages.teacher", "resnet20", 7)
    imported = steps(student={"method": "mtard"}, clean_teacher={"source": "t.pt"})["clean-teacher"]
    assert (imported.module, imported.config.source) == ("compress.stages.teacher_import", "t.pt")


def test_faults_of_its_section_are_told_by_name() -> None:
    with pytest.raises(CompressError, match=r"clean_teacher\.epoch: unknown key; did you mean 'epochs'"):
        steps(clean_teacher={"epoch": 7})
    with pytest.raises(CompressError, match=r"clean_teacher\.wights: unknown key; did you mean 'weights'"):
        steps(clean_teacher={"source": "t.pt", "wights": "x"})
    with pytest.raises(CompressError, match=r"clean_teacher\.method: unknown method 'rslad'"):
        steps(clean_teacher={"method": "rslad"})


def test_the_starter_shows_it(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(starter(file))
    assert config.load_run(file) == config.parse(config.Run, {"data": "digits"}, "x")
    assert "\nclean_teacher:\n" in file.read_text()
