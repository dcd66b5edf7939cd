"""Every model of RobustBench's CIFAR L∞ zoos that can be constructed here loads and computes what its own code does.

And so do the networks of timm that ours are written after.
"""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
PYTHON = ROOT / ".venv-zoo" / "bin" / "python"


@pytest.fixture(autouse=True)
def installed() -> None:
    if not PYTHON.exists():
        if os.environ.get("CI"):
            pytest.fail(f"{PYTHON} is missing; `make test-slow` makes it")
        pytest.skip("robustbench is not installed; `make test-slow` installs it into .venv-zoo")


def test_weights_of_timm_compute_in_our_networks_what_they_compute_in_timms() -> None:
    program, environment = ROOT / "tests" / "slow" / "timm_weights.py", {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([PYTHON, program], cwd=ROOT, env=environment, capture_output=True, text=True)
    rows = {row["name"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert {name: row["model"] for name, row in rows.items() if "model" in row} == {
        "deit_tiny_patch16_224": "vit-ti-16",
        "vit_small_patch16_224": "vit-s-16",
        "vit_tiny_patch16_224": "vit-ti-4",
        "convnext_atto": "convnext-atto-4",
        "convnext_femto": "convnext-femto-4",
        "convnext_pico": "convnext-pico-4",
    }, done.stderr[-1000:]
    assert max(row["gap"] for row in rows.values() if "model" in row) < 1e-5
    for name in ("deit_tiny_distilled_patch16_224", "convnext_tiny", "convnextv2_atto"):
        assert "fit no architecture known here" in rows[name]["fault"]


def test_the_whole_zoo_loads_and_agrees() -> None:
    done = subprocess.run([PYTHON, "benchmarks/zoo.py", "all"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    found = re.search(r"(\d+) of (\d+) load and agree; (\d+) of 114", done.stdout)
    assert found is not None, done.stdout[-500:]
    agreed, constructed, refused = map(int, found.groups())
    assert agreed == constructed >= 102 and refused <= 12
    for line in re.findall(r"cannot be constructed here: .*", done.stdout):
        assert "constructor fails here (" in line  # each with its reason
