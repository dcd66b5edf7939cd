"""`compress teacher import` and `list`, and a run whose teacher is imported: flags, output, faults."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from compress import chain, config, networks
from edge.core import artifact
from tests.compress.fake_stages import Call, caller


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run a command line in a folder that holds net.pt, a resnet8 for digits: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    torch.save({"state_dict": networks.build_network("resnet8", channels=1, classes=10).state_dict()}, "net.pt")
    return caller(capsys)


def test_an_import_prints_what_was_found_and_measured(call: Call) -> None:
    code, out, _ = call("teacher import net.pt --data digits --eps 8/255 --images 50 --steps 2 --out T")
    assert code == 0 and out.startswith("teacher  T  ")
    assert "model       resnet8" in out and "n 50, clean 0." in out and "attack pgd, steps 2, eps 8/255" in out
    stage = artifact.read("T")
    assert stage.config["source"] == "net.pt" and stage.data["name"] == "digits"
    code, out, _ = call("teacher import net.pt --data digits --eps 8/255 --images 50 --steps 2 --out T --json")
    said = json.loads(out)
    assert code == 0 and said["complete_already"] and said["metrics"]["test"]["n"] == 50


def test_no_check_measures_nothing_and_the_radius_has_a_default(call: Call) -> None:
    assert call("teacher import net.pt --data digits --no-check --out T")[0] == 0
    stage = artifact.read("T")
    assert "test" not in stage.metrics and stage.config["threat"]["eps"] == "40/255"
    assert call("teacher import net.pt --image-size 8 --out U")[0] == 0
    assert artifact.read("U").config["threat"]["eps"] == "8/255"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("teacher import net.pt", "--out is missing; see `compress teacher import --help`"),
        ("teacher import net.pt --arch resnet9 --out T", "unknown model 'resnet9'; did you mean 'resnet8'"),
        (
            "teacher import net.pt --normalize cifar11 --out T",
            "normalize 'cifar11': no such constants (known: none, cifar10",
        ),
        ("teacher import net.pt --normalize cifar10 --out T", "3 means and 3 deviations for 1 channels"),
        ("teacher import net.pt --key ema --out T", "no weights under 'ema' (there are: state_dict)"),
        ("teacher import net.pt --weights net.pt --out T", "is a file itself; --weights goes with a name or a factory"),
        ("teacher import net.pt --data digit --out T", "unknown data 'digit'; did you mean 'digits'"),
        ("teacher import net.pt --data imagefolder --out T", "data 'imagefolder' needs a path: imagefolder:PATH"),
        ("teacher import net.pt --data imagefolder:nowhere --out T", "nowhere"),
        (
            "run quickstart --teacher nowhere.pt --set teacher.imags=3 --dry-run",
            "teacher.imags: unknown key; did you mean",
        ),
        ("run quickstart --teacher nowhere.pt --dry-run", "nowhere.pt: no such file"),
    ],
)
def test_a_fault_of_the_user_is_one_line_and_nothing_is_left(call: Call, line: str, said: str) -> None:
    code, out, err = call(line)
    assert (code, out) == (2, "") and err.count("\n") == 1 and said in err
    assert not [path for path in Path().iterdir() if path.name != "net.pt"]


def test_the_list_shows_every_entry_with_its_figures(call: Call) -> None:
    code, out, _ = call("teacher list")
    assert code == 0 and len(out.splitlines()) == 115
    (row,) = (line.split() for line in out.splitlines() if "cifar10/Chen2021LTD_WRN34_10 " in line)
    assert row[1:] == ["WideResNet-34-10", "46.2", "M", "85.21", "%", "56.94", "%", "native"]
    rows = json.loads(call("teacher list --dataset cifar100 --json")[1])
    assert len(rows) == 38 and {row["source"].split("/")[0] for row in rows} == {"robustbench:cifar100"}
    assert all(0 < row["autoattack"] < row["clean"] < 1 for row in rows)


def test_a_run_may_import_its_teacher(call: Call) -> None:
    code, out, err = call("run quickstart --teacher net.pt --out R --dry-run")
    assert code == 0, err
    assert out.splitlines()[0].split() == ["teacher", "to", "do"]
    settled = config.load_run("quickstart", {"teacher": {"source": "net.pt", "images": 40}})
    first = chain.steps(settled, Path("r"))[0]
    assert first.module == "compress.stages.teacher_import" and first.config.images == 40
    assert (first.config.data, first.config.threat.eps) == ("digits", "40/255")


def test_where_the_data_lay_is_remembered_but_no_part_of_the_identity(call: Call) -> None:
    import numpy as np

    from compress import data

    digits = data.load_dataset("digits")
    split = np.empty(len(digits.labels), "U5")
    for name, index in digits.splits.items():
        split[index] = name
    for folder in ("here", "there"):
        Path(folder).mkdir()
        np.savez(f"{folder}/digits.npz", images=digits.images, labels=digits.labels, split=split)
    brief: Any = "--eps 8/255 --images 20 --steps 1"
    for number, folder in enumerate(("here", "there")):
        code, _, err = call(f"teacher import net.pt --data npz:{folder}/digits.npz {brief} --out T{number}")
        assert code == 0, err
    first, second = artifact.read("T0"), artifact.read("T1")
    assert first.identity == second.identity and first.config["data"] == "npz"
    assert first.input_path("data") == Path("here/digits.npz").resolve()
    line = (
        "distill --teacher T0 --method rslad --student resnet8 --epochs 1 --set attack.steps=1 --set validate_steps=1"
    )
    code, _, err = call(f"{line} --set test_steps=1 --allow-non-robust --out S")
    assert code == 0, err
    assert artifact.read("S").data == first.data, "the student's data is the teacher's"
