"""A user's convolutional network, GroupNorm network and transformer, each to a robust figure of its INT8 file."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from compress.cli.execute import execute
from edge.core import artifact
from edge.statement.statement import STATEMENT, Predicate, read_statement
from tests.compress.own_networks import NETWORKS, to_a_verified_file, write_module

pytestmark = pytest.mark.slow

BRIEF = "epochs: 1, attack: {steps: 1}, validate_steps: 1, test_steps: 1, optimizer: adamw"
CONFIG = f"""
data: digits
teacher: {{source: TEACHER/weights.safetensors, check: true, steps: 1, images: 40}}
student: {{model: "mynets:NETWORK", method: vgap, teacher_floor: 0, {BRIEF}}}
quantize: {{{BRIEF}}}
attack: {{images: 20, ensemble: none, steps: 2, restarts: 1}}
verify: {{square_queries: 5, decision_queries: 5, latency: {{warmup: 1, samples: 5}}}}
"""


@pytest.fixture(autouse=True)
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_module(tmp_path)
    monkeypatch.chdir(tmp_path)


def stated(folder: Path) -> Predicate:
    said = read_statement(artifact.read(folder).file(STATEMENT)).predicate
    assert said.figures.robust is not None and all(part.covered for part in said.protocol)
    return said


@pytest.mark.parametrize("network", NETWORKS)
def test_by_flags(network: str, chain: SimpleNamespace, tmp_path: Path) -> None:
    said = stated(to_a_verified_file(network, chain.teacher, tmp_path))
    assert said.artifact.precision == "int8" and said.agreement is not None
    assert said.agreement.clean.argmax_agreement >= 0.9


@pytest.mark.parametrize("network", NETWORKS)
def test_by_one_file(network: str, chain: SimpleNamespace, tmp_path: Path) -> None:
    text = CONFIG.replace("TEACHER", str(chain.teacher)).replace("NETWORK", network)
    Path("c.yaml").write_text(text, encoding="utf-8")
    assert execute(["run", "c.yaml", "--out", "runs"]) == 0
    said = stated(tmp_path / "runs/verified/onnx-cpu")
    assert said.artifact.precision == "int8"
    assert stated(tmp_path / "runs/verified/onnx-float-cpu").artifact.precision == "float32"
    assert [ancestor.stage for ancestor in said.lineage] == ["exported", "quantized", "student", "teacher"]


def test_an_imported_network_in_the_students_place_by_one_file(chain: SimpleNamespace, tmp_path: Path) -> None:
    """`student: null`: the teacher itself is fine-tuned through its quantizers, attacked and stated."""
    student, quantize = (
        f"student: {{model: mynets:cnn, method: vgap, teacher_floor: 0, {BRIEF}}}",
        f"quantize: {{{BRIEF}}}",
    )
    text = CONFIG.replace("TEACHER", str(chain.teacher)).replace('"mynets:NETWORK"', "mynets:cnn")
    assert student in text and quantize in text
    text = text.replace(student, "student: null").replace(quantize, f"quantize: {{method: pgd-at, {BRIEF}}}")
    Path("c.yaml").write_text(text, encoding="utf-8")
    assert execute(["run", "c.yaml", "--out", "runs"]) == 0
    said = stated(tmp_path / "runs/verified/onnx-cpu")
    assert [ancestor.stage for ancestor in said.lineage] == ["exported", "quantized", "teacher"]
