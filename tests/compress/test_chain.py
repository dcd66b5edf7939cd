"""The chain's own logic over substitute stages: layout, what is stale and why, what is made again, what is kept."""

import fcntl
import os
from pathlib import Path
from typing import Any

import pytest

from compress import chain, config
from compress.stages.attack import AttackInputs
from compress.stages.distill import StudentInputs
from compress.stages.quantize import QuantizeInputs
from edge.core import artifact
from edge.core.errors import CompressError
from edge.verify.verify import VerifyInputs
from export.stage import ExportInputs
from tests.compress.fake_stages import Fakes, install

CONTENT = {"data": "digits", "baselines": {"normal": {"method": "normal"}, "rslad": {"method": "rslad"}}}
ALL = [
    "teacher",
    "baselines/normal",
    "baselines/rslad",
    "student",
    "quantized",
    "exported/onnx",
    "exported/onnx-float",
    "attack-set",
    "verified/onnx-cpu",
    "verified/onnx-float-cpu",
]
RUN = Path("r")
AFTER_STUDENT = ALL[ALL.index("student") :]


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Fakes:
    return install(monkeypatch)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "run"


def settled(**overrides: Any) -> config.Run:
    dotted = {key.replace("__", "."): value for key, value in overrides.items()}
    return config.parse(config.Run, config.merged(CONTENT, dotted), "x")


def states(run: config.Run, root: Path, start: "str | None" = None) -> dict[str, str]:
    steps = chain.steps(run, root)
    found = chain.survey(steps, chain.downstream(steps, start) if start else chain.NONE)
    return {state.step.name: f"{state.state} ({state.why})" if state.why else state.state for state in found}


def last(names: list[str]) -> list[str]:
    return [name.rpartition("/")[2] for name in names]


# ------------------------------------------------------------------------------------------------ layout


def test_the_layout_of_a_run():
    steps = {step.name: step for step in chain.steps(settled(), RUN)}
    assert list(steps) == ALL
    assert steps["student"].inputs == StudentInputs(teacher=RUN / "teacher")
    assert steps["baselines/normal"].inputs == StudentInputs()
    assert steps["quantized"].inputs == QuantizeInputs(RUN / "student", teacher=RUN / "teacher")
    assert steps["exported/onnx"].inputs == ExportInputs(RUN / "quantized")
    assert steps["exported/onnx-float"].inputs == ExportInputs(RUN / "student")
    exported = (RUN / "exported/onnx", RUN / "exported/onnx-float")
    assert steps["attack-set"].inputs == AttackInputs(RUN / "student", RUN / "quantized", exported)
    assert steps["verified/onnx-float-cpu"].inputs == VerifyInputs(RUN / "exported/onnx-float", RUN / "attack-set")
    assert chain.shipped(settled()) == "verified/onnx-cpu"
    assert steps["attack-set"].needs == ["student", "quantized", "exported/onnx", "exported/onnx-float"]
    assert steps["exported/onnx"].folder == RUN / "exported/onnx"


def test_a_target_is_verified_where_it_executes():
    run = settled(targets=["tensorrt", "onnx"], devices=["cpu", "jetson"])
    verified = [step.name for step in chain.steps(run, RUN) if step.kind == "verified" and "float" not in step.name]
    assert verified == ["verified/tensorrt-jetson", "verified/onnx-cpu", "verified/onnx-jetson"]
    assert chain.shipped(run) == "verified/tensorrt-jetson"


def test_a_run_that_executes_nothing_is_refused(fakes: Fakes, root: Path):
    with pytest.raises(CompressError, match="devices: cpu executes none of the targets"):
        chain.run(settled(targets=["tensorrt"]), root)
    assert not root.exists()


@pytest.mark.parametrize(
    ("asked", "shipped", "beside"), [("int8", "int8", "auto"), ("fp16", "auto", "fp16"), ("auto", "auto", "auto")]
)
def test_a_precision_is_asked_of_the_file_that_can_have_it(asked: str, shipped: str, beside: str):
    steps = {step.name: step for step in chain.steps(settled(export__precision=asked), RUN)}
    assert steps["exported/onnx"].config.precision == shipped
    assert steps["exported/onnx-float"].config.precision == beside


def test_without_quantization_the_student_has_the_precision_that_was_asked():
    steps = {step.name: step for step in chain.steps(settled(quantize=None, export__precision="int8"), RUN)}
    assert steps["exported/onnx"].config.precision == "int8"  # refused by the stage, which says what to do


def test_a_float_run_ships_the_student_once():
    steps = {step.name: step for step in chain.steps(settled(quantize=None), RUN)}
    assert list(steps)[-4:] == ["student", "exported/onnx", "attack-set", "verified/onnx-cpu"]
    assert steps["exported/onnx"].inputs == ExportInputs(RUN / "student")
    assert steps["attack-set"].inputs == AttackInputs(RUN / "student", exported=(RUN / "exported/onnx",))


def test_no_teacher_is_trained_that_nobody_learns_from():
    alone = {"data": "digits", "student": {"method": "pgd-at"}}
    steps = {step.name: step for step in chain.steps(config.parse(config.Run, alone, "x"), RUN)}
    assert "teacher" not in steps
    assert steps["quantized"].inputs == QuantizeInputs(RUN / "student")


def test_without_a_student_the_teacher_is_quantized_attacked_and_shipped():
    alone = {"data": "digits", "student": None, "teacher": {"source": "net.pt"}, "quantize": {"method": "pgd-at"}}
    steps = {step.name: step for step in chain.steps(config.parse(config.Run, alone, "x"), RUN)}
    assert list(steps)[:2] == ["teacher", "quantized"] and "student" not in steps
    assert steps["quantized"].inputs == QuantizeInputs(RUN / "teacher")
    assert steps["exported/onnx-float"].inputs == ExportInputs(RUN / "teacher")
    assert steps["attack-set"].inputs.student == RUN / "teacher"
    trained = chain.steps(config.parse(config.Run, {"data": "digits", "student": None}, "x"), RUN)
    assert [step.name for step in trained][:2] == ["teacher", "quantized"]
    silent = config.parse(config.Run, {**alone, "quantize": {}}, "x")
    with pytest.raises(CompressError, match="no method to fine-tune it by is known; add method"):
        chain.steps(silent, RUN)


def test_every_section_reaches_its_stage():
    run = settled(teacher__epochs=2, baselines__rslad__lr=0.5, verify__threads=3, export__opset=19, threat__eps="1/255")
    steps = {step.name: step for step in chain.steps(run, RUN)}
    assert steps["teacher"].config.epochs == 2
    assert (steps["baselines/rslad"].config.lr, steps["student"].config.lr) == (0.5, 0.1)
    assert (steps["exported/onnx-float"].config.target, steps["exported/onnx-float"].config.opset) == ("onnx", 19)
    assert (steps["verified/onnx-cpu"].config["threads"], steps["verified/onnx-cpu"].config["device"]) == (3, "cpu")
    everywhere = [step.config if isinstance(step.config, dict) else step.config.model_dump() for step in steps.values()]
    assert {settings["threat"]["eps"] for settings in everywhere} == {"1/255"}


@pytest.mark.parametrize(
    ("start", "reached"),
    [
        ("teacher", [name for name in ALL if name != "baselines/normal"]),
        ("baselines/normal", ["baselines/normal"]),
        ("student", AFTER_STUDENT),
        ("exported/onnx-float", ["exported/onnx-float", *ALL[-3:]]),
        ("exported", ALL[-5:]),
        ("verified/onnx-cpu", ["verified/onnx-cpu"]),
    ],
)
def test_what_lies_downstream(start: str, reached: list[str]):
    assert chain.downstream(chain.steps(settled(), RUN), start) == {*reached}


def test_an_unknown_stage_is_answered_with_the_nearest():
    with pytest.raises(CompressError, match=r"no stage 'quantised'.*did you mean 'quantized'"):
        chain.downstream(chain.steps(settled(), RUN), "quantised")


# ------------------------------------------------------------------------------------------------ states


def test_a_fresh_run_is_made_in_order_and_then_complete(fakes: Fakes, root: Path):
    assert set(states(settled(), root).values()) == {"to do"}
    assert not root.exists()
    result = chain.run(settled(), root)
    assert list(result.made) == ALL
    assert fakes.made == last(ALL)
    assert set(states(settled(), root).values()) == {"complete"}
    assert chain.run(settled(), root).made == ()
    assert fakes.made == last(ALL)
    assert set(result.stages) == set(ALL)


def test_a_changed_setting_makes_its_stage_and_what_follows_stale(fakes: Fakes, root: Path):
    chain.run(settled(), root)
    changed = settled(student__lr=0.05)
    found = states(changed, root)
    assert found["student"] == "stale (config.lr: 0.1 → 0.05)"
    assert found["quantized"] == "stale (student is made anew)"
    assert found["exported/onnx"] == "stale (quantized is made anew)"
    assert found["attack-set"] == "stale (student is made anew)"
    assert {found[name] for name in ("teacher", "baselines/normal", "baselines/rslad")} == {"complete"}
    fakes.made.clear()
    assert list(chain.run(changed, root).made) == AFTER_STUDENT
    assert fakes.made == last(AFTER_STUDENT)
    assert artifact.read(root / "student").config["lr"] == 0.05


def test_a_method_is_named_in_what_became_stale(fakes: Fakes, root: Path):
    chain.run(settled(student__method="rslad"), root)
    found = states(settled(student__method="vgap"), root)
    assert "config.method: 'rslad' → 'vgap'" in found["student"]


def test_a_stage_cut_off_resumes_and_what_follows_is_to_do(fakes: Fakes, root: Path):
    def cut_off(folder: Path) -> None:
        if folder.name == "quantized":
            raise RuntimeError("killed")

    fakes.during = cut_off
    with pytest.raises(RuntimeError, match="killed"):
        chain.run(settled(), root)
    found = states(settled(), root)
    assert (found["student"], found["quantized"], found["exported/onnx"]) == ("complete", "resumes", "to do")
    fakes.during = lambda folder: None
    fakes.made.clear()
    result = chain.run(settled(), root)
    assert list(result.made) == ALL[ALL.index("quantized") :]
    assert result.stages["quantized"].metrics["resumed"]
    assert not result.stages["attack-set"].metrics["resumed"]


def test_lines_say_where_or_why(fakes: Fakes, root: Path):
    chain.run(settled(), root)
    lines = chain.lines(chain.survey(chain.steps(settled(student__lr=0.05), root)))
    assert lines[0] == f"{'teacher':<23}  complete  {root}/teacher"
    assert lines[3] == f"{'student':<23}  stale (config.lr: 0.1 → 0.05)"


# ------------------------------------------------------------------------------------------------ anew


def test_from_a_stage_on_everything_is_made_anew_and_the_old_stays_until_then(fakes: Fakes, root: Path):
    chain.run(settled(), root)
    before = {name: artifact.read(root / name).manifest["made"] for name in ALL}
    stood = []
    fakes.during = lambda folder: stood.append(artifact.read(folder).path.name)
    fakes.made.clear()
    assert states(settled(), root, "student")["student"] == "stale (to be made anew)"
    assert list(chain.run(settled(), root, start="student").made) == AFTER_STUDENT
    assert stood == fakes.made == last(AFTER_STUDENT)
    assert artifact.read(root / "teacher").manifest["made"] == before["teacher"]
    assert not list(root.rglob("*.old")) and not list(root.rglob("*.partial"))


def test_a_failure_while_made_anew_leaves_the_old_stage(fakes: Fakes, root: Path):
    chain.run(settled(), root)
    identity = artifact.read(root / "student").identity

    def fail(folder: Path) -> None:
        raise CompressError("no room")

    fakes.during = fail
    with pytest.raises(CompressError, match="no room"):
        chain.run(settled(), root, start="student")
    assert artifact.read(root / "student").identity == identity
    assert not artifact.ANEW.get()


# ------------------------------------------------------------------------------------------------ faults


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[0] ^= 1
    file.write_bytes(content)


def test_a_damaged_stage_is_told_before_anything_is_made_and_can_be_made_anew(fakes: Fakes, root: Path):
    chain.run(settled(), root)
    flip(root / "student" / "weights.safetensors")
    fakes.made.clear()
    with pytest.raises(CompressError, match=r"student: weights\.safetensors has sha256"):
        chain.run(settled(teacher__lr=0.3), root)
    assert fakes.made == []
    chain.run(settled(), root, start="student")
    artifact.read(root / "student")


def test_a_stage_of_another_kind_is_not_replaced(fakes: Fakes, root: Path):
    chain.run(settled(), root)
    os.rename(root / "quantized", root / "aside")
    os.rename(root / "student", root / "quantized")
    os.rename(root / "aside", root / "student")
    with pytest.raises(CompressError, match="is a stage of kind quantized; needed here: student"):
        chain.run(settled(), root)


def test_files_that_are_no_stage_are_left_alone(fakes: Fakes, root: Path):
    (root / "teacher").mkdir(parents=True)
    (root / "teacher" / "thesis.tex").write_text("mine")
    with pytest.raises(CompressError, match="not a stage folder"):
        chain.run(settled(), root)
    with pytest.raises(CompressError, match="holds files that are no stage"):
        chain.run(settled(), root, start="teacher")
    assert (root / "teacher" / "thesis.tex").read_text() == "mine"


def test_a_stage_that_another_process_makes_is_left_to_it(fakes: Fakes, root: Path):
    (root / "teacher.partial").mkdir(parents=True)
    handle = os.open(root / "teacher.partial", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        with pytest.raises(CompressError, match="is working on it"):
            chain.run(settled(), root)
    finally:
        os.close(handle)


# ------------------------------------------------------------------------------------------------ conclusion


def test_the_report_is_written_when_a_stage_was_made_or_it_is_gone(fakes: Fakes, root: Path):
    report = chain.run(settled(require=["clean>=0.8"]), root).report
    assert report == root / "report.html"
    assert report.read_text() == "10 stages, ['clean>=0.8']"
    report.write_text("as it was")
    chain.run(settled(), root)
    assert report.read_text() == "as it was"
    report.unlink()
    chain.run(settled(), root)
    assert report.exists()
    report.write_text("as it was")
    chain.run(settled(verify__threads=1), root)
    assert report.read_text() != "as it was"


def test_requirements_are_judged_on_complete_stages_too(fakes: Fakes, root: Path):
    assert [o.passed for o in chain.run(settled(require=["robust>=0.3"]), root).outcomes] == [True]
    again = chain.run(settled(require=["robust>=0.3", "robust>=0.49", "clean>=0.8"]), root)
    assert again.made == ()
    assert [outcome.passed for outcome in again.outcomes] == [True, False, True]  # 0.5, of which the lower end counts


def test_a_requirement_that_cannot_be_read_costs_no_work(fakes: Fakes, root: Path):
    with pytest.raises(CompressError, match="robust"):
        chain.run(settled(require=["robst>=0.3"]), root)
    assert fakes.made == []
    assert not root.exists()


@pytest.mark.parametrize("kind", [StudentInputs, QuantizeInputs, ExportInputs, AttackInputs, VerifyInputs])
def test_a_stage_has_no_input_that_it_does_not_know(kind: type) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'techer'"):
        kind(techer=RUN)
