"""The device side in an arm64 userland: Debian's packages under qemu, arm64 wheels, a processor as a Jetson has it.

`make test-arm64` fetches the userland into .arm64/ and runs this. In CI its absence fails.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from compress.remote import bundle
from edge.core import artifact
from edge.statement import statement
from tests.edge.stages import EPS, World
from tests.slow import loopback

pytestmark = pytest.mark.slow

PYTHON = Path(os.environ.get("ARM64", ".arm64")).resolve() / "bin" / "python3"
BRIEF = ("--samples", 20, "--square-queries", 20)


@pytest.fixture(scope="module")
def python() -> Path:
    if not (PYTHON.parent.parent / "ready").is_file():
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no arm64 userland here: make test-arm64")
    return PYTHON


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.deployed(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def run(python: Path, tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Run]":
    folder = tmp_path_factory.mktemp("arm64")
    bundle.write_bundle(folder / "edge.pyz")
    yield Run(python, folder)


class Run:
    """`python3 edge.pyz ARGS` there."""

    def __init__(self, python: Path, folder: Path) -> None:
        self.python, self.folder = python, folder

    def __call__(self, *args: object) -> "subprocess.CompletedProcess[str]":
        command = [str(self.python), "edge.pyz", *map(str, args)]
        env = {"PATH": os.environ["PATH"], "HOME": str(self.folder)}
        return subprocess.run(command, env=env, cwd=self.folder, capture_output=True, text=True, timeout=600)


def test_the_selftest_passes(run: Run) -> None:
    done = run("selftest")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["passed"] and found["runtime"]["name"] == "onnxruntime"
    golden = [row for row in found["checks"] if row["name"].startswith("golden logits")]
    assert len(golden) == 2 and all(row["passed"] for row in golden)


def test_an_artifact_computes_there_what_it_computed_here(run: Run, world: World) -> None:
    exported, attacks = (world.stages[name].path for name in ("exported", "attack-set"))
    done = run("check", exported, "--attack-set", attacks, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["passed"] and found["frozen"] == {"n": 100, "different": 0, "passed": True}


def test_a_verdict_comes_back_from_it(run: Run, world: World, tmp_path: Path) -> None:
    stages = world.stages["exported"].path, "--attack-set", world.stages["attack-set"].path
    with loopback.running(tmp_path / "board", run.python) as board:
        process = loopback.compress(
            board,
            *("verify", *stages, "--device", "jetson", "--host", "board", "--out", tmp_path / "v"),
            *("--eps", EPS, *BRIEF, "--set", "decision_queries=20", "--require", "clean>=0.5"),
        )
        _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    predicate = statement.read_statement(tmp_path / "v").as_json()["predicate"]
    assert predicate["figures"]["robust"] is not None
    assert predicate["runtime"]["version"] == "1.23.2"
    assert "not-a-jetson" in [warning["name"] for warning in predicate["warnings"]]


def test_gradients_reach_it(run: Run, chain: SimpleNamespace, tmp_path: Path) -> None:
    """Hybrid BPDA with every forward pass by arm64's ONNX Runtime, and the verdict on it, robust and not a bound."""
    brief = ("--images", 20, "--ensemble", "none", "--steps", 2, "--restarts", 1)
    stages = ("attack", chain.student, "--quantized", chain.quantized, "--exported", chain.e)
    judging = ("verify", chain.e, "--attack-set", tmp_path / "a", "--device", "jetson", "--out", tmp_path / "v", *BRIEF)
    with loopback.running(tmp_path / "board", run.python) as board:
        for args in ((*stages, *brief, "--out", tmp_path / "a"), (*judging, "--set", "decision_queries=20")):
            process = loopback.compress(board, *args, "--host", "board")
            _, err = process.communicate(timeout=600)
            assert process.returncode == 0, err
    made = artifact.read(tmp_path / "a", ("attack-set",))
    attacks = json.loads(made.file("attack-set.json").read_text())["attacks"]
    assert {attack["where"] for attack in attacks if attack["kind"] == "bpda"} == {
        "forward by onnxruntime on board, backward by torch on the workstation"
    }
    predicate = statement.read_statement(tmp_path / "v").as_json()["predicate"]
    assert predicate["figures"]["robust"] is not None and predicate["runtime"]["version"] == "1.23.2"
