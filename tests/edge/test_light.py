"""What importing the device side pulls in: numpy and the standard library; the runtime only with a runner."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import edge
from tests.edge import linear
from tests.edge.test_runner import WEIGHTS

HOME = Path(edge.__file__).parent
MODULES = sorted(
    ".".join(path.relative_to(HOME.parent).with_suffix("").parts)
    for path in HOME.rglob("*.py")
    if not path.stem.startswith("__")
)
HEAVY = {"torch", "onnx", "pydantic", "yaml", "click", "scipy", "sklearn", "modelopt", "safetensors"}


def imported(code: str) -> set[str]:
    """The top-level packages that are there after `code`, in a process of its own."""
    script = f"import json, sys\n{code}\nprint(json.dumps(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_there_are_modules_to_import() -> None:
    assert {
        "edge.verify.verify",
        "edge.runtimes.onnxruntime.runner",
        "edge.runtimes.tensorrt.build",
        "edge.evidence.warnings",
    } <= set(MODULES)


def test_all_modules_together_pull_in_nothing_heavy() -> None:
    found = imported("\n".join(f"import {name}" for name in MODULES))
    assert {"numpy", "edge"} <= found
    assert not found & (HEAVY | {"onnxruntime", "compress", "export"})


@pytest.mark.parametrize("heavy", ["yaml", "scipy"])
def test_the_recorder_sees_what_is_imported(heavy: str) -> None:
    assert heavy in imported(f"import {heavy}")


def test_a_runner_pulls_in_its_runtime_alone(tmp_path: Path) -> None:
    path = linear.linear(tmp_path / "m.onnx", WEIGHTS)
    found = imported(f"import edge\nassert 'onnxruntime' not in sys.modules\nedge.open_runner({str(path)!r}).close()")
    assert "onnxruntime" in found and not found & HEAVY


def test_without_the_runtime_one_line_says_how_to_get_it(tmp_path: Path) -> None:
    path = linear.linear(tmp_path / "m.onnx", WEIGHTS)
    code = f"import sys; sys.modules['onnxruntime'] = None\nimport edge\nedge.open_runner({str(path)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1].endswith(
        "CompressError: onnxruntime is not installed, it executes .onnx files; pip install onnxruntime"
    )
