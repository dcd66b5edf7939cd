"""At the size of ImageNet's images: a training step, the export and its parity, by the command line."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest

from compress import folders
from compress.cli.execute import execute
from edge.core import artifact

pytestmark = pytest.mark.slow

SIDE = 224


@pytest.mark.parametrize("model", ["vit-ti-16", "convnext-atto-4"])
def test_a_network_is_trained_by_a_step_and_its_export_says_what_it_says(model: str, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (20, SIDE, SIDE, 3), np.uint8)
    np.savez(
        tmp_path / "d.npz", x_train=images, y_train=np.arange(20) % 2, x_test=images[:4] ^ 1, y_test=np.arange(4) % 2
    )
    teacher, exported = tmp_path / "teacher", tmp_path / "exported"
    brief = "--method pgd-at --epochs 1 --batch-size 8 --precision float32"
    more = "optimizer=adamw clip=1.0 attack.steps=1 validate_steps=1 test_steps=1 warmup=0"
    options = " ".join(f"--set {option}" for option in more.split())
    run = f"teacher train --data npz:{tmp_path}/d.npz --eps 4/255 --model {model} {brief} {options} --out {teacher}"
    assert execute(shlex.split(run)) == 0
    rows = [json.loads(line) for line in (teacher / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 1 and np.isfinite(rows[0]["adversarial"])
    network = folders.load(teacher)
    assert json.loads((teacher / "model.json").read_text())["input"] == [3, SIDE, SIDE]
    assert all(bool(value.isfinite().all()) for value in network.state_dict().values())
    line = f"export {teacher} --data npz:{tmp_path}/d.npz --target onnx --set parity_images=2 --out {exported}"
    assert execute(shlex.split(line)) == 0
    parity = artifact.read(exported).metrics["parity"]
    assert parity["passed"] and parity["max_abs"] <= 1e-3 * max(parity["scale"], 1.0)
