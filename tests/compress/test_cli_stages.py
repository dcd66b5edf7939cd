"""The stage verbs over substitute stages: what each is configured with, and what is printed of it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from edge.core import artifact
from tests.compress.fake_stages import Call, Fakes, caller, install


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Fakes:
    return install(monkeypatch)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fakes: Fakes) -> Call:
    """Run a command line in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    return caller(capsys)


@pytest.fixture
def made(call: Call) -> Call:
    """The same where a teacher T and a student S stand, made with a radius and seeds that are no defaults."""
    for line in (
        "teacher train --data digits --eps 1/255 --seed 3 --out T",
        "distill --teacher T --student resnet8 --data digits --method vgap --seed 5 --out runs/s",
    ):
        assert call(line)[0] == 0
    return call


def settings(folder: str) -> dict[str, Any]:
    return artifact.read(folder).config


def test_the_lines_of_the_readme_work(made: Call):
    for line in (
        "distill --teacher T --student resnet8 --data digits --method vgap --seed 5 --out runs/s",
        "quantize runs/s --out runs/q",
        "export runs/q --target onnx --out runs/e",
        "attack runs/s --quantized runs/q --exported runs/e --out runs/a",
        'verify runs/e --attack-set runs/a --device cpu --require "robust>=0.3"',
    ):
        code, _, err = made(line)
        assert (code, err) == (0, ""), (line, err)
    assert artifact.read("runs/e-cpu-verified").kind == "verified"


def test_what_is_not_given_is_inherited_from_the_folder(made: Call):
    assert settings("runs/s")["threat"]["eps"] == "1/255"
    assert (settings("T")["seed"], settings("runs/s")["seed"]) == (3, 5)
    made("distill --teacher T --out unseeded")
    assert settings("unseeded")["seed"] == 0, "a student's seed is its own"
    made("quantize runs/s --out runs/q")
    made("export runs/q --out runs/e")
    made("attack runs/s --quantized runs/q --exported runs/e --out runs/a")
    made("verify runs/e --attack-set runs/a --out runs/v")
    for folder in ("runs/q", "runs/e", "runs/a", "runs/v"):
        found = settings(folder)
        assert (found["data"], found["threat"]["eps"], found["seed"]) == ("digits", "1/255", 5), folder


def test_flags_stand_over_the_config_file_and_that_over_what_is_inherited(made: Call):
    Path("c.yaml").write_text("data: digits\nthreat: {eps: 2/255}\nseed: 7\nquantize: {epochs: 4, lr: 0.5}\n")
    made("quantize runs/s --config c.yaml --lr 0.25 --set attack.steps=6 --seed 8 --out q")
    found = settings("q")
    assert (found["epochs"], found["lr"], found["attack"]["steps"]) == (4, 0.25, 6)
    assert (found["threat"]["eps"], found["seed"], found["mode"]) == ("2/255", 8, "qat")
    made("quantize runs/s --config c.yaml --eps 3/255 --epochs 2 --set epochs=1 --out r")
    assert (settings("r")["threat"]["eps"], settings("r")["seed"], settings("r")["epochs"]) == ("3/255", 7, 1)
    Path("d.yaml").write_text("data: digits\nquantize: null\n")
    made("quantize runs/s --config d.yaml --out d")
    assert (settings("d")["threat"]["eps"], settings("d")["seed"], settings("d")["epochs"]) == ("1/255", 5, 3)


def test_every_flag_reaches_its_key(made: Call):
    made("teacher train --data digits --model resnet20 --method normal --epochs 2 --lr 0.3 --batch-size 32 --out t")
    assert {key: settings("t")[key] for key in ("model", "method", "epochs", "lr", "batch_size")} == {
        "model": "resnet20",
        "method": "normal",
        "epochs": 2,
        "lr": 0.3,
        "batch_size": 32,
    }
    made("quantize runs/s --mode ptq --out q")
    made("export q --opset 19 --out e")
    made("attack runs/s --exported e --images 30 --steps 4 --restarts 3 --out a")
    made("verify e --attack-set a --threads 2 --samples 40 --square-queries 7 --set latency.warmup=1 --out v")
    assert (settings("q")["mode"], settings("e")["opset"], settings("e")["target"]) == ("ptq", 19, "onnx")
    assert [settings("a")[key] for key in ("images", "steps", "restarts")] == [30, 4, 3]
    verified = settings("v")
    assert (verified["threads"], verified["square_queries"], verified["device"]) == (2, 7, "cpu")
    assert (verified["latency"]["samples"], verified["latency"]["warmup"]) == (40, 1)


def test_inputs_go_where_the_stage_looks_for_them(made: Call):
    made("export runs/s --out e1")
    made("export runs/s --opset 19 --out e2")
    made("attack runs/s --exported e1 --exported e2 --out a")
    read = artifact.read("a").manifest["plan"]["inputs"]
    expected = {"student-0": "runs/s", "exported-0": "e1", "exported-1": "e2"}
    assert read == {role: artifact.read(folder).identity for role, folder in expected.items()}


def test_a_stage_is_told_in_a_few_lines_and_as_one_object(made: Call, fakes: Fakes):
    code, out, err = made("quantize runs/s --out q")
    first, *rest = out.splitlines()
    identity = artifact.read("q").identity
    assert (code, err, first) == (0, "", f"quantized  q  {identity[:12]}")
    assert any(re.fullmatch(r"  test +n 200, clean 0\.9, robust 0\.5, attack pgd, steps 20", line) for line in rest)
    made_so_far = list(fakes.made)
    assert made("quantize runs/s --out q")[1].splitlines()[0] == f"{first}  complete already"
    code, out, err = made("quantize runs/s --out q --json")
    assert json.loads(out) == {
        "folder": "q",
        "stage": "quantized",
        "identity": identity,
        "complete_already": True,
        "metrics": artifact.read("q").metrics,
    }
    assert fakes.made == made_so_far


def test_the_manifest_names_the_command(made: Call, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.argv", ["/bin/compress", "quantize", "runs/s", "--out", "a b"])
    made("quantize runs/s --out 'a b'")
    assert artifact.read("a b").manifest["made"]["command"] == "compress quantize runs/s --out 'a b'"


def test_another_plan_in_the_folder_is_refused_in_one_line(made: Call):
    code, out, err = made("distill --teacher T --seed 6 --out runs/s")
    assert (code, out) == (2, "")
    assert "holds a stage made otherwise (config.seed: 5 → 6; seed: 5 → 6)" in err and err.count("\n") == 1


def test_a_folder_of_another_kind_is_refused_in_one_line(made: Call):
    made("export runs/s --out e")
    made("attack runs/s --exported e --out a")
    code, _, err = made("quantize a --out q")
    kinds = "student or teacher or exported"  # which an adopted file is
    assert (code, err) == (2, f"compress: a: is a stage of kind attack-set; needed here: {kinds}\n")


@pytest.fixture
def exported(made: Call) -> Call:
    made("export runs/s --out e")
    made("attack runs/s --exported e --out a")
    return made


def test_a_failed_requirement_is_exit_3_after_everything_is_written(exported: Call):
    line = "verify e --attack-set a --require 'robust>=0.3' --require 'robust>=0.49' --junit gates.xml"
    code, out, err = exported(line)
    assert code == 3
    assert artifact.read("e-cpu-verified").kind == "verified"
    judged = [text for text in out.splitlines() if text.startswith(("passed", "FAILED"))]
    assert [text.split()[:2] for text in judged] == [["passed", "robust>=0.3"], ["FAILED", "robust>=0.49"]]
    assert err == "compress: 1 of 2 requirements failed: robust>=0.49\n"
    assert Path("gates.xml").read_text().startswith("<")
    assert exported("verify e --attack-set a --require 'robust>=0.3'")[0] == 0
    code, out, _ = exported(f"{line} --json")
    assert code == 3
    told = json.loads(out)
    assert told["complete_already"] and [gate["passed"] for gate in told["requirements"]] == [True, False]


def test_a_requirement_that_cannot_be_read_costs_no_work(exported: Call):
    code, out, err = exported("verify e --attack-set a --require 'robst>=0.3'")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert not Path("e-cpu-verified").exists()
