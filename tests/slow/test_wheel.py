"""`pip install .` into an empty environment gives a working `compress demo`: configs, schema and styles travel."""

import json
import os
import shutil
import subprocess
import venv
from pathlib import Path

import pytest

from edge.core import artifact

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment that holds the wheel and what it asks for, nothing else."""
    where = tmp_path_factory.mktemp("wheel") / "venv"
    venv.create(where, with_pip=True)
    pip = [where / "bin" / "python", "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", ROOT]
    subprocess.run([str(part) for part in pip], check=True, cwd="/")
    return where / "bin"


def test_the_demo_runs_from_the_wheel_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    bare = {"PATH": f"{installed}:/usr/bin:/bin", "HOME": str(tmp_path), "LANG": "C.UTF-8"}
    done = subprocess.run(["compress", "demo", "--json"], cwd=tmp_path, env=bare, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout)
    root = tmp_path / "runs" / "quickstart"
    assert (root / "report.html").stat().st_size > 50_000
    teacher, shipped = artifact.read(root / "teacher"), artifact.read(root / "exported" / "onnx")
    assert teacher.metrics["parameters"] >= 10 * shipped.metrics["parameters"]
    normal, student = artifact.read(root / "baselines" / "normal"), artifact.read(root / "student")
    assert normal.metrics["test"]["robust"] < 0.2 < 0.6 < student.metrics["test"]["robust"]


@pytest.mark.parametrize("command", [["compress"], ["python", "-m", "compress"]])
def test_both_ways_of_calling_work_outside_the_repository(installed: Path, tmp_path: Path, command: list[str]) -> None:
    env = {**os.environ, "PATH": f"{installed}:/usr/bin:/bin"}
    env.pop("PYTHONPATH", None)
    done = subprocess.run([*command, "--version"], cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    assert "0.1.0" in done.stdout
    subprocess.run([*command, "init", "mine.yaml"], cwd=tmp_path, env=env, check=True, capture_output=True)
    dry = [*command, "run", "mine.yaml", "--dry-run"]
    done = subprocess.run(dry, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    assert "to do" in done.stdout + done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


def python_3_10() -> "str | None":
    """A Python 3.10 that starts: $PYTHON310, or python3.10 on the path."""
    for candidate in (os.environ.get("PYTHON310"), shutil.which("python3.10")):
        if candidate and subprocess.run([candidate, "--version"], capture_output=True).returncode == 0:
            return candidate
    return None


@pytest.mark.skipif(python_3_10() is None, reason="no Python 3.10 here; set PYTHON310 to one")
def test_the_edge_package_imports_on_python_3_10_with_numpy_and_a_runtime_alone(tmp_path: Path) -> None:
    subprocess.run([str(python_3_10()), "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "numpy", "onnxruntime"], check=True)
    modules = (
        "edge, edge.verify.verify, edge.statement.gate, edge.statement.statement, edge.runtimes.onnxruntime.runner"
    )
    code = f"import {modules}; print('imported')"
    done = subprocess.run([python, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "imported"
