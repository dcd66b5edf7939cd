"""`compress verify`'s gate and `compress statement` on real folders: exit codes, one-line faults, every format."""

import json
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.core.artifact import file_sha256
from edge.evidence.warnings import WARNINGS
from tests.compress.fake_stages import Call, caller
from tests.edge.stages import World

VERIFY = (
    "verify {0} --attack-set attack-set --eps 8/255 --square-queries 30 --set decision_queries=30 --samples 7 "
    "--set batch_size=8 --set latency.warmup=1 --threads 1"
)
ANY_STATE = " ".join(f"--allow-alarm {name}" for name in WARNINGS)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two artifacts of one twin, one that computes another class, and an attack set of all."""
    root = tmp_path_factory.mktemp("chain")
    world = World.make(root)
    nets = {"one": world.twin, "two": world.twin + 1e-4, "wrong": world.twin[[1, 0, 2]]}
    for name, weights in nets.items():
        world.export(name, weights)
    world.attack_set(nets)
    return root


@pytest.fixture
def call(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    shutil.copytree(original, tmp_path / "w")
    monkeypatch.chdir(tmp_path / "w")
    return caller(capsys)


def faults(err: str) -> "list[str]":
    """Without the lines of progress."""
    return [line for line in err.splitlines() if line.startswith("compress: ")]


def test_one_artifact_under_a_whole_gate(call: Call) -> None:
    assert call(f"{VERIFY.format('one')} --out base")[0] == 0
    line = f"{VERIFY.format('two')} --against base --require 'clean>=0.4' --junit g.xml --annotations github"
    code, out, err = call(line)
    assert (code, faults(err)) == (0, []), err
    assert "against     base: bytes differ" in out and "verdict   inconclusive, margin 0.5 points" in out
    commands = [text for text in out.splitlines() if text.startswith("::")]
    assert commands[0].startswith("::notice title=requirement%3A clean>=0.4::")
    assert sum(text.startswith("::warning title=comparison") for text in commands) == 2
    suite = ElementTree.parse("g.xml").getroot()
    groups = [case.get("classname") for case in suite]
    assert list(dict.fromkeys(groups)) == ["requirement", "alarm", "machine state", "comparison"]
    assert groups.count("comparison") == 2
    code, _, err = call(f"{line} --strict")
    assert code == 3 and "comparison failed: clean not worse than base by 0.5 points" in faults(err)[0]
    assert call(f"{line} --margin 50 --strict {ANY_STATE}")[0] == 0
    code, out, err = call(f"{line} --json")
    told = json.loads(out)
    assert code == 0 and told["comparison"]["verdict"] == "inconclusive" and "::notice" in err
    assert (
        call(f"{VERIFY.format('one')} --out base --against base/statement.json --margin 0 --strict {ANY_STATE}")[0] == 0
    )


def test_a_machine_in_a_state_of_no_trust_fails_when_strict(call: Call) -> None:
    """Seven queries are over in no time: nothing was watched."""
    code, out, err = call(f"{VERIFY.format('one')} --out base")
    assert code == 0 and "warning     few-samples: the timed part lasted 0." in out
    code, out, err = call(f"{VERIFY.format('one')} --out base --strict --json")
    assert code == 3 and "machine state failed: few-samples" in faults(err)[0]
    told = json.loads(out)["warnings"]
    assert "few-samples" in [row["name"] for row in told] and all(row["fix"] for row in told)
    assert call(f"{VERIFY.format('one')} --out base --strict {ANY_STATE}")[0] == 0
    shown = call("statement show base")[1]
    assert "state of the machine" in shown and " samples in 0." in shown
    with np.load("base/evidence.npz") as samples:
        assert len(samples["monotonic_ns"]) >= 2
    assert call("statement check base")[0] == 0


def test_a_swapped_class_is_worse_and_its_alarm_fails_the_gate(call: Call) -> None:
    call(f"{VERIFY.format('one')} --out base")
    line = f"{VERIFY.format('wrong')} --against base"
    code, out, err = call(line)
    assert code == 3 and "verdict   worse" in out and "wrong when clean" in out
    assert "comparison failed: clean not worse than base" in faults(err)[0]
    code, out, err = call(f"{VERIFY.format('wrong')} --require 'robust>=0' --require 'size_bytes>=1'")
    assert (
        code == 3
        and "FAILED  robust>=0  (alarm fired: twin disagrees, chance level; " in out
        and "passed  size_bytes>=1" in out
    )
    assert faults(err) == ["compress: 1 of 2 requirements failed: robust>=0"]
    line = f"{VERIFY.format('wrong')} --require 'robust>=0' --allow-alarm twin-disagrees --allow-alarm chance-level"
    code, out, _ = call(line)
    assert code == 3 and "FAILED  robust>=0  (not above chance, a constant classifier gets 0.5333; " in out


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("--margin 1", "--margin is about a comparison"),
        ("--against nowhere", "not readable as a statement"),
        ("--against one", "not readable as a statement"),
        ("--allow-alarm mask", "unknown alarm 'mask'; did you mean 'masking'"),
        ("--budget soon", "'soon' is no time; write it like 90s, 20m or 2h"),
        ("--annotations gitlab", "--annotations: 'gitlab' is not"),
    ],
)
def test_what_cannot_be_meant_costs_no_work(call: Call, more: str, said: str) -> None:
    code, out, err = call(f"{VERIFY.format('one')} --out v {more}")
    assert (code, out, err.count("\n")) == (2, "", 1) and said in err
    assert not Path("v").exists() and not Path("v.partial").exists()


def test_a_budget_that_ends_first_fails_the_gate_and_says_so(call: Call) -> None:
    code, out, err = call(f"{VERIFY.format('one')} --budget 0.000001s --require 'robust>=0.1' --out v")
    assert code == 3 and faults(err) == ["compress: 1 of 1 requirements failed: robust>=0.1"]
    assert "robust      inconclusive," in out and "FAILED  robust>=0.1" in out and "taken to fall" in out
    assert json.loads(Path("v/manifest.json").read_text())["plan"]["config"]["budget"] == 1e-6
    assert (
        call(f"{VERIFY.format('one')} --budget 1m --out w")[0] == call(f"{VERIFY.format('one')} --budget 60 --out w")[0]
    )


def test_several_stand_in_one_table_each_in_its_own_folder(call: Call) -> None:
    code, out, err = call(f"{VERIFY.format('one two')} --out many --require 'clean>=0.4' --junit g.xml")
    assert code == 0, err
    for name in ("one-cpu-verified", "two-cpu-verified"):
        assert Path("many", name, "statement.json").is_file()
    rows = [line.split() for line in out.splitlines()]
    (titles,) = [row for row in rows if row[:2] == ["artifact", "precision"]]
    assert titles[2:4] == ["clean", "robust"]
    (square,) = [row for row in rows if row[0:1] == ["square"]]
    assert len(square) == 3 and all(cell.endswith("%") for cell in square[1:])
    names = [
        case.get("name") for case in ElementTree.parse("g.xml").getroot() if case.get("classname") == "requirement"
    ]
    assert names == ["one-cpu-verified: clean>=0.4", "two-cpu-verified: clean>=0.4"]
    told = json.loads(call(f"{VERIFY.format('one two')} --out many --json")[1])
    assert [Path(one["folder"]).name for one in told] == ["one-cpu-verified", "two-cpu-verified"]
    assert all(one["complete_already"] for one in told)


def test_two_artifacts_of_one_name_are_refused(call: Call) -> None:
    code, _, err = call(f"{VERIFY.format('one ../w/one')} --out many")
    assert code == 2 and "two artifacts would be verified into it" in err and not Path("many").exists()


def test_keygen_sign_check_and_show(call: Call) -> None:
    call(f"{VERIFY.format('one')} --out v")
    assert call("statement keygen k") == (0, "k\nk.pub\n", "")
    assert call("statement check v")[0] == 0
    assert call("statement check v --key k.pub")[0] == 3
    assert call("statement sign v --key k") == (0, "v/statement.dsse.json\nv/files.dsse.json\n", "")
    code, out, _ = call("statement check v --key k.pub")
    assert code == 0 and all(line.startswith("right") for line in out.splitlines()) and "signed by" in out
    told = json.loads(call("statement check v --key k.pub --json")[1])
    names = ["signature", "files", "schema", "artifact", "verdicts", "attack set"]
    assert [row["name"] for row in told["checked"]] == names and not any(row["skipped"] for row in told["checked"])
    code, out, _ = call("statement show v")
    assert code == 0 and file_sha256(Path("one/model.onnx")) in out and "Empirical" in out
    assert json.loads(call("statement show v/statement.json --json")[1])["predicate"]["nature"] == "empirical"
    with open("one/model.onnx", "ab") as shipped:
        shipped.write(b"\0")
    code, out, err = call("statement check v --key k.pub")
    assert (code, out) == (3, "") and "model.onnx: has sha256" in err and err.count("\n") == 1
    assert call("statement sign v --key k")[0] == 3, "what does not fit is not signed"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("statement sign v", "needs one of --key FILE and --keyless"),
        ("statement check v --identity me", "or by --identity NAME with --provider URL"),
        ("statement show nowhere", "nowhere: not readable as a statement"),
        ("statement check one", "is a stage of kind exported; give a verified folder"),
        ("statement chek", "no command 'chek'; did you mean 'check'?"),
    ],
)
def test_faults_are_one_line_and_exit_2(call: Call, line: str, said: str) -> None:
    code, out, err = call(line)
    assert (code, out, err.count("\n")) == (2, "", 1) and said in err


def test_a_newer_statement_is_exit_2(call: Call) -> None:
    call(f"{VERIFY.format('one')} --out v")
    file = Path("v/statement.json")
    stated: dict[str, Any] = json.loads(file.read_text())
    stated["predicateType"] = stated["predicateType"][:-1] + "3"
    Path("newer.json").write_text(json.dumps(stated))
    for line in ("statement show newer.json", f"{VERIFY.format('two')} --out x --against newer.json"):
        code, _, err = call(line)
        assert code == 2 and "version 3, this program reads 2" in err and err.count("\n") == 1
