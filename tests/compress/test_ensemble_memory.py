"""Memory of the ensemble: 10,000 CIFAR images under any number of attacks take at most 512 MiB more than the model."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import re, sys
from pathlib import Path
import numpy as np, torch
from torch import nn
from compress.attacks import presets
from compress.attacks.ensemble import evaluate

def mebibytes(kind):
    return int(re.search(kind + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

torch.set_num_threads(1)
torch.manual_seed(0)
model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)).eval()
images = np.random.default_rng(0).integers(0, 256, (10_000, 3, 32, 32), np.uint8)
with torch.no_grad():
    parts = np.array_split(images, 80)
    labels = np.concatenate([model(torch.from_numpy(part).float() / 255).argmax(1).numpy() for part in parts])
attacks = sys.argv[2:]
plan = presets.attack_plan(attacks, 10)
evaluate(model, images[:128], labels[:128], plan, eps=1e-4)  # the working set of one batch
before = mebibytes("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
evaluate(model, images, labels, plan, eps=1e-4, identity="m", state_folder=sys.argv[1])
print(mebibytes("VmHWM") - before)
"""


@pytest.mark.slow
def test_ten_thousand_images_fit(tmp_path: Path) -> None:
    attacks = ["apgd-ce-2", "square-3", "pgd-1", "pgd-margin-1"]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "state"), *attacks], capture_output=True, text=True, check=True
    )
    grown = float(done.stdout)
    assert grown < 512, "MiB"
    assert grown > 117, "less than the adversarial images alone: it was not measured"
