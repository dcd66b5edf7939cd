"""`compress run`, `demo` and `report`: what is printed, what a dry run leaves alone, and one real run of the chain."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from edge.core import artifact
from tests.compress.fake_stages import Call, Fakes, caller, install

CONFIG = "data: digits\nbaselines: {normal: {method: normal}}\nrequire: ['clean>=0.8']\n"


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run a command line in a folder that holds c.yaml: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text(CONFIG)
    return caller(capsys)


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Fakes:
    return install(monkeypatch)


def test_a_run_prints_its_figures(call: Call, fakes: Fakes):
    code, out, err = call("run c.yaml")
    assert code == 0
    head, *rows = out.splitlines()
    assert head.split() == ["stage", "clean", "robust", "robust", "by", "size", "p50"]
    table = {row.split()[0]: row.split() for row in rows}
    assert table["teacher"][1:6] == ["90.0", "%", "50.0", "%", "PGD-20"]
    assert table["verified/onnx-cpu"][1:] == ["90.0", "%", "50.0", "%", "worst", "case", "96.3", "kB", "1.250", "ms"]
    assert "exported/onnx" not in table
    assert table["report"][1] == "runs/c/report.html" and Path("runs/c/report.html").exists()
    assert rows[-1].startswith("9 of 9 stages made, ")
    said = err.splitlines()
    assert said[0].split(maxsplit=1) == ["teacher", "to do"] and said[-1] == "making verified/onnx-float-cpu"
    assert call("run c.yaml")[1].splitlines()[-1].startswith("0 of 9 stages made, ")


def test_a_dry_run_makes_nothing(call: Call, fakes: Fakes):
    code, out, _ = call("run c.yaml --dry-run --out made/by")
    assert code == 0
    assert [line.split(maxsplit=1)[1] for line in out.splitlines()] == ["to do"] * 9
    assert fakes.made == [] and not Path("made").exists()
    call("run c.yaml")
    names = sorted(str(path) for path in Path().rglob("*"))
    code, out, _ = call("run c.yaml --dry-run --from quantized --set student.lr=0.3 --json")
    told = json.loads(out)
    assert {stage["name"]: stage["state"] for stage in told["stages"]}["teacher"] == "complete"
    assert {stage["name"]: stage["why"] for stage in told["stages"]}["student"] == "config.lr: 0.1 → 0.3"
    assert sorted(str(path) for path in Path().rglob("*")) == names


def test_flags_reach_the_run(call: Call, fakes: Fakes):
    assert call("run c.yaml --seed 4 --set quantize=null --set teacher.epochs=2 --out elsewhere")[0] == 0
    assert not Path("elsewhere/quantized").exists()
    found = artifact.read("elsewhere/teacher").config
    assert (found["seed"], found["epochs"]) == (4, 2)


def test_a_run_goes_where_its_config_says(call: Call, fakes: Fakes):
    Path("c.yaml").write_text(CONFIG + "out: said/here\n")
    call("run c.yaml")
    assert Path("said/here/report.html").exists() and not Path("runs").exists()


def test_a_failed_requirement_is_exit_3_on_complete_stages_too(call: Call, fakes: Fakes):
    assert call("run c.yaml")[0] == 0
    fakes.made.clear()
    code, out, err = call("run c.yaml --require 'robust>=0.49' --junit gates.xml")
    assert code == 3
    judged = [text.split()[:2] for text in out.splitlines() if text.startswith(("passed", "FAILED"))]
    assert judged == [["passed", "clean>=0.8"], ["FAILED", "robust>=0.49"]]
    assert err.splitlines()[-1] == "compress: 1 of 2 requirements failed: robust>=0.49"
    assert fakes.made == [] and Path("gates.xml").exists()


def test_json_is_one_object_and_nothing_else(call: Call, fakes: Fakes):
    code, out, _ = call("run c.yaml --json --require 'robust>=0.49'")
    told = json.loads(out)
    assert code == 3
    assert (told["folder"], told["shipped"], told["report"]) == ("runs/c", "verified/onnx-cpu", "runs/c/report.html")
    assert all(stage["made"] for stage in told["stages"]) and len(told["stages"]) == 9
    assert [gate["passed"] for gate in told["requirements"]] == [True, False]


def test_demo_is_the_quickstart(call: Call, fakes: Fakes):
    assert call("demo")[0] == 0
    assert call("run quickstart --dry-run")[1].count("complete") == 10
    assert artifact.read("runs/quickstart/baselines/normal").config["method"] == "normal"


@pytest.fixture
def one_thread() -> Iterator[None]:
    """So small a network is slower on two threads than on one, and far slower beside another busy process."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_the_tiny_config_goes_through_the_whole_real_chain(call: Call):
    code, out, err = call("run tiny --out run")
    assert code == 0, err
    assert {path.name for path in Path("run").iterdir()} == {
        *("teacher", "baselines", "student", "quantized", "exported", "attack-set", "verified", "report.html")
    }
    assert "verified/onnx-float-cpu" in out
    report = Path("run/report.html").read_bytes()
    Path("run/report.html").unlink()
    assert call("report run") == (0, "run/report.html\n", "")
    assert call("report run --out there.html --json") == (0, '{"report": "there.html"}\n', "")
    assert Path("run/report.html").read_bytes() == Path("there.html").read_bytes() == report
    code, out, _ = call("run tiny --out run --json")
    assert code == 0
    told = json.loads(out)
    assert not any(stage["made"] for stage in told["stages"])
    before = {stage["name"]: stage["identity"] for stage in told["stages"]}
    told = json.loads(call("run tiny --out run --json --from attack-set")[1])
    assert next(stage["name"] for stage in told["stages"] if stage["made"]) == "attack-set"
    assert {stage["name"]: stage["identity"] for stage in told["stages"]} == before, "the same bytes, made twice"
