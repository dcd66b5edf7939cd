"""Every family of networks through Torch-TensorRT's own converters and TensorRT-RTX's builder, without a GPU.

In processes of their own (`torch_tensorrt_without_gpu.py` says what stands in for the GPU there), over packages that
`make test-slow` unpacks. TensorRT-RTX builds INT8 convolutions since 1.7, which no Torch-TensorRT goes with: so INT8 is
built by this environment's 1.7, floats by the version that belongs to the converters.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.slow.families import FAMILIES

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
CONVERTERS, PAIRED = (ROOT / ".venv-torch-trt" / name for name in ("converters", "paired"))
#: All but those that normalise each image or scale their activations by learned factors.
NETWORKS = {name: image for name, image in FAMILIES.items() if name not in ("wrn-10-4+pssilu", "wrn-10-4+standardize")}
BYTES = {"float32": 4, "fp16": 2, "bf16": 2, "int8": 1}


@pytest.fixture(scope="module", autouse=True)
def unpacked() -> None:
    if os.environ.get("CI"):
        assert CONVERTERS.is_dir(), "make test-slow unpacks it"
    if not CONVERTERS.is_dir():
        pytest.skip(f"{CONVERTERS.parent.name} is not there; make test-slow unpacks it on x86-64")


def run(cases: Sequence[dict[str, Any]], cwd: Path, libraries: Sequence[Path]) -> list[dict[str, Any]]:
    """What the process says of each case; `libraries` stand before this environment's packages."""
    path = os.pathsep.join(map(str, [*libraries, ROOT]))
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("torch_tensorrt_without_gpu.py"))],
        input=json.dumps(list(cases)),
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(found) == len(cases), done.stderr[-3000:]
    return found


def conversions(precisions: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {"do": "convert", "name": name, "shape": shape, "precision": precision}
        for precision in precisions
        for name, shape in NETWORKS.items()
    ]


def held(cases: Sequence[dict[str, Any]], found: Sequence[dict[str, Any]]) -> None:
    """One engine of the whole network each, its weights inside, in a type of the precision asked for."""
    for case, made in zip(cases, found, strict=True):
        label = f"{case['name']} {case['precision']}: {made}"
        print(label)
        assert "fault" not in made, label
        assert made["engines"] == 1 and made["in_torch"] == [], label
        assert made["bytes"] > made["weights"] * BYTES[case["precision"]], label


def test_every_family_converts_in_every_float_type(tmp_path: Path) -> None:
    cases = conversions(["float32", "fp16", "bf16"])
    found = run(cases, tmp_path, [CONVERTERS, PAIRED])
    held(cases, found)
    size = {(case["name"], case["precision"]): made["bytes"] for case, made in zip(cases, found, strict=True)}
    assert size["resnet18", "fp16"] < 0.6 * size["resnet18", "float32"]  # the weights are stored in half


def test_every_family_converts_in_int8(tmp_path: Path) -> None:
    cases = conversions(["int8"])
    found = run(cases, tmp_path, [CONVERTERS])
    held(cases, found)
    large = next(made for case, made in zip(cases, found, strict=True) if case["name"] == "resnet18")
    assert large["bytes"] < 1.5 * large["weights"]  # the weights are stored in 8 bits


def test_the_paired_library_builds_no_int8_convolution(tmp_path: Path) -> None:
    """Why it is refused: where this fails, `RTX_WITH_INT8` of the version table is out of date."""
    case = {"do": "convert", "name": "resnet8", "shape": (1, 8, 8), "precision": "int8"}
    (found,) = run([case], tmp_path, [CONVERTERS, PAIRED])
    assert "CompressError: torch-tensorrt-rtx cannot build this network (IBuilder::" in found["fault"]


def test_what_stays_in_torch_is_told_with_its_layer(tmp_path: Path) -> None:
    """The deviation over all values of an image of any batch has no converter in this version."""
    case = {"do": "convert", "name": "wrn-10-4+standardize", "shape": (1, 8, 8), "precision": "fp16"}
    (found,) = run([case], tmp_path, [CONVERTERS, PAIRED])
    assert found["in_torch"] == ["preprocess: prims::broadcast_in_dim"] and found["engines"] == 2


@pytest.mark.parametrize(("source", "precision"), [("student", "fp16"), ("student", "float32"), ("quantized", "int8")])
def test_a_stage_is_written_and_its_runner_opens_it(
    chain: SimpleNamespace, tmp_path: Path, source: str, precision: str
) -> None:
    """Everything but the engine's own arithmetic, which the network that it was built from lends."""
    case = {"do": "write", "source": str(getattr(chain, source)), "out": str(tmp_path / "e"), "precision": precision}
    libraries = [CONVERTERS] if precision == "int8" else [CONVERTERS, PAIRED]
    (found,) = run([case], tmp_path, libraries)
    assert found.get("files") == ["contract.json", "model.onnx", "program.ep"], found
    metrics = found["metrics"]
    assert metrics["precision"] == precision and metrics["executed"] and metrics["in_torch"] == []
    assert metrics["parity"]["passed"] and metrics["parity"]["batch_sizes"] == [1, 16]
    assert metrics["bytes"] == (tmp_path / "e" / "program.ep").stat().st_size
    manifest = json.loads((tmp_path / "e" / "manifest.json").read_text())
    assert found["sha256"] == manifest["payload"]["program.ep"]["sha256"]
    assert found["batch_size"] == 16 and found["gap"] < 1e-5  # 64 was asked for, the program takes up to 16
    assert {path.name for path in (tmp_path / "e").iterdir()} == {"manifest.json", *manifest["payload"]}
