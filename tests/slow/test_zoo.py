"""Every model of RobustBench's CIFAR L∞ zoos that can be constructed here loads and computes what its own code does."""

import os
import re
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
PYTHON = ROOT / ".venv-zoo" / "bin" / "python"


def test_the_whole_zoo_loads_and_agrees() -> None:
    if not PYTHON.exists():
        if os.environ.get("CI"):
            pytest.fail(f"{PYTHON} is missing; `make test-slow` makes it")
        pytest.skip("robustbench is not installed; `make test-slow` installs it into .venv-zoo")
    done = subprocess.run([PYTHON, "benchmarks/zoo.py", "all"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    found = re.search(r"(\d+) of (\d+) load and agree; (\d+) of 114", done.stdout)
    assert found is not None, done.stdout[-500:]
    agreed, constructed, refused = map(int, found.groups())
    assert agreed == constructed >= 102 and refused <= 12
    for line in re.findall(r"cannot be constructed here: .*", done.stdout):
        assert "constructor fails here (" in line  # each with its reason
