"""A package that adds one object of each kind, installed and used by command line only, as CONTRIBUTING.md says.

Its target has an INT8 dialect of its own and executes graphs by ONNX's reference implementation, in numpy.
"""

import json
import shutil
import site
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import pytest

from edge.core import artifact

pytestmark = pytest.mark.slow

PACKAGE = Path(__file__).parent / "package"
ROOT = PACKAGE.parent.parent.parent
#: What the target needs on a board, by import name: onnx, and what that imports.
ON_BOARD = ("numpy", "numpy.libs", "onnx", "google", "ml_dtypes", "typing_extensions.py")
TRAINED = ["--set", "attack.steps=3", "--set", "validate_steps=3", "--set", "test_steps=5"]

#: Median difference of the artifact's logits from those of the twin of each dialect.
TWINS = """
import json
import numpy as np
import torch
from compress.data import load_dataset
from compress.folders import load
from edge import open_runner

images = load_dataset("stripes").part("val")[0]
logits = open_runner("e").infer(images)
twins = {name: load("q", runtime=name)(torch.from_numpy(images) / 255) for name in ("reference", "onnx")}
differences = {name: float(np.median(np.abs(twin.detach().numpy() - logits))) for name, twin in twins.items()}
open("twins.json", "w").write(json.dumps(differences))
"""


@dataclass(frozen=True)
class Workstation:
    """An environment that the package is installed in, and the folder that commands run in."""

    python: Path
    folder: Path

    def compress(self, *args: "str | Path", code: int = 0) -> str:
        """`compress ARGS` there; what it writes on stdout."""
        return self.run(self.python, "-m", "compress", *args, code=code)

    def run(self, *args: "str | Path", code: int = 0, **variables: str) -> str:
        bare = {"PATH": "/usr/bin:/bin", "HOME": str(self.folder), "LANG": "C.UTF-8", **variables}
        done = subprocess.run([str(arg) for arg in args], cwd=self.folder, env=bare, capture_output=True, text=True)
        assert done.returncode == code, f"{args}: exit {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done.stdout


@pytest.fixture(scope="module")
def workstation(tmp_path_factory: pytest.TempPathFactory) -> Workstation:
    """A fresh environment with the package by pip; ours and what we need are those of this Python."""
    folder = tmp_path_factory.mktemp("stranger")
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", PACKAGE]
    subprocess.run([str(part) for part in pip], check=True, cwd="/")
    (packages,) = (folder / "venv").glob("lib/python3*/site-packages")
    assert (packages / "stranger").is_dir() and (packages / "stranger_device").is_dir()
    (packages / "main.pth").write_text("\n".join([str(ROOT), *site.getsitepackages(), ""]))
    return Workstation(python, folder)


@pytest.fixture(scope="module")
def chain(workstation: Workstation) -> Workstation:
    """From the teacher to the attack set, all of it by the package's objects."""
    compress = workstation.compress
    compress("teacher", "train", "--data", "stripes", "--model", "pebble-16", "--epochs", "6", *TRAINED, "--out", "t")
    student = ["distill", "--teacher", "t", "--student", "pebble-8", "--method", "saliency", "--epochs", "4"]
    compress(*student, "--lr", "0.1", "--batch-size", "32", *TRAINED, "--out", "s")
    compress("quantize", "s", "--runtime", "reference", "--epochs", "1", *TRAINED, "--out", "q")
    compress("export", "q", "--target", "reference", "--out", "e")
    compress("export", "s", "--target", "reference", "--out", "float")
    brief = ["--images", "60", "--ensemble", "quick", "--steps", "3", "--restarts", "1"]
    compress("attack", "s", "--quantized", "q", "--exported", "e", "--exported", "float", *brief, "--out", "a")
    return workstation


def content(path: Path) -> Any:
    return json.loads(path.read_text())


def test_the_terms_of_the_method_are_what_the_student_learns_by(chain: Workstation) -> None:
    rows = [json.loads(line) for line in (chain.folder / "s" / "metrics.jsonl").read_text().splitlines()]
    assert all({"kl_adversarial", "slopes"} <= {*row} for row in rows) and len(rows) == 4
    assert rows[-1]["slopes"] < rows[0]["slopes"] / 2  # the student's slopes approach the teacher's
    student = artifact.read(chain.folder / "s")
    assert student.config["method"] == "saliency" and student.config["options"]["slope_weight"] == 1
    assert student.metrics["test"]["robust"] > 0.5 and student.metrics["parameters"] < 2000
    tuned = (chain.folder / "q" / "metrics.jsonl").read_text().splitlines()
    assert "slopes" in json.loads(tuned[0])  # through the quantizers too


def test_the_artifact_is_the_target_s_own(chain: Workstation) -> None:
    contract = content(chain.folder / "e" / "contract.json")
    assert (contract["target"], contract["runtime"], contract["precision"]) == ("reference", "onnx-reference", "int8")
    assert contract["labels"] == ["lying", "standing", "slanting"]
    parity = artifact.read(chain.folder / "e").metrics["parity"]
    assert parity["passed"] and parity["argmax_agreement"] == 1
    chain.run(chain.python, "-c", TWINS)
    differences = content(chain.folder / "twins.json")  # but for rare roundings it computes what its own twin does
    assert differences["reference"] < differences["onnx"] / 20

    chain.compress("export", "q", "--target", "onnx", "--out", "onnx")
    own, other = (onnx.load(chain.folder / name / "model.onnx") for name in ("e", "onnx"))
    assert own.SerializeToString() != other.SerializeToString()
    types = [{entry.data_type for entry in graph.graph.initializer} for graph in (own, other)]
    assert onnx.TensorProto.UINT8 in types[1] - types[0] and onnx.TensorProto.INT32 in types[0]


def test_verify_executes_its_runner_and_states_it(chain: Workstation) -> None:
    brief = ["--attack-set", "a", "--samples", "50", "--square-queries", "20", "--set", "decision_queries=20"]
    chain.compress("verify", "e", *brief, "--require", "robust>=0.3", "--require", "agreement>=0.9", "--out", "v")
    stated = content(chain.folder / "v" / "statement.json")["predicate"]
    assert stated["runtime"]["name"] == "onnx-reference" and stated["runtime"]["provider"] == "numpy"
    assert stated["artifact"]["executed"] and stated["artifact"]["target"] == "reference"
    assert stated["artifact"]["sha256"] == artifact.file_sha256(chain.folder / "e" / "model.onnx")
    assert (chain.folder / "v" / "report.html").stat().st_size > 10_000
    chain.compress("verify", "e", *brief, "--require", "robust>=1", "--out", "v", code=3)
    chain.compress("verify", "e", "--attack-set", "a", "--device", "cuda", "--out", "elsewhere", code=2)


def test_the_attack_has_its_row(chain: Workstation) -> None:
    brief = ["--attack", "corners", "--images", "60", "--eps", "64/255", "--allow-invalid", "--out", "ev"]
    assert "corners" in chain.compress("evaluate", "s", *brief)
    (row,) = content(chain.folder / "ev" / "evaluation.json")["attacks"]
    assert row["name"] == "corners" and row["attacked"] > 0 and row["inadmissible"] == 0
    assert row["parameters"] == {"restarts": 4, "package": "compress-stranger 1.0"}
    assert row["broke"] > 0  # at a radius twice the dataset's


def test_doctor_and_inspect_know_the_target(chain: Workstation) -> None:
    told = json.loads(chain.compress("doctor", "--json"))["targets"]["reference"]
    assert told["build"]["can"] == told["run"]["can"] == "yes"
    inspected = json.loads(chain.compress("inspect", "e", "--json"))
    assert inspected["target"] == "reference" and inspected["contract"]["runtime"] == "onnx-reference"
    assert {layer["stored"] for layer in inspected["graph"]["layers"] if layer["weight"]} == {"int8"}
    for verb, name in (("distill", "saliency"), ("export", "reference"), ("quantize", "reference")):
        assert name in chain.compress(verb, "--help")


def test_a_whole_run_takes_them_from_a_config(chain: Workstation) -> None:
    sections = ["teacher: {model: pebble-16}", "student: {model: pebble-8, method: saliency}", "targets: [reference]"]
    (chain.folder / "run.yaml").write_text("\n".join(["data: stripes", *sections, ""]))
    planned = chain.compress("run", "run.yaml", "--dry-run")
    assert "exported/reference" in planned and "verified/reference-cpu" in planned


def test_a_board_gets_the_runner_in_the_bundle(chain: Workstation) -> None:
    """Run there by a Python that has onnx and its needs, and neither our packages nor the stranger's."""
    chain.compress("bundle", "edge.pyz")
    board = chain.folder / "board"
    board.mkdir()
    for name in ON_BOARD:
        there = (place for folder in site.getsitepackages() if (place := Path(folder, name)).exists())
        for place in there:
            (board / name).symlink_to(place)
    interpreter = shutil.which(Path(sys.executable).resolve()) or sys.executable
    edge = [interpreter, "-S", chain.folder / "edge.pyz"]
    brief = ["--device", "cpu", "--samples", "50", "--square-queries", "20", "--decision-queries", "20"]
    chain.run(*edge, "verify", "e", "--attack-set", "a", *brief, "--out", "vb", PYTHONPATH=str(board))
    stated = content(chain.folder / "vb" / "statement.json")["predicate"]
    assert stated["runtime"]["name"] == "onnx-reference"
    chain.run(*edge, "check", "e", "--attack-set", "a", "--device", "cpu", PYTHONPATH=str(board))
    told = json.loads(chain.run(*edge, "doctor", "--json", PYTHONPATH=str(board)))
    assert told["targets"]["reference"]["run"]["can"] == "yes"
    assert "onnxruntime" not in told["modules"]
