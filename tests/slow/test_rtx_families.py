"""TensorRT-RTX builds every family of networks in float32, FP16 and INT8, and executes each layer in what it should."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.edge.tensorrt import parts
from tests.slow.tensorrt_programs.families import FAMILIES

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
PRECISIONS = ("float32", "fp16", "int8")
#: Nodes with weights that the builder fuses into a kernel that does not name them.
UNSEEN = {("convnext-yocto-1", "fp16"): 1}
#: Nodes meant for INT8 whose weights it dequantizes first: queries, keys and values of each block.
HALF = {"vit-nano-2": 4}


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], dict[str, Any]]:
    parts.rtx()
    place = {"ROBUST_COMPRESS_CACHE": str(tmp_path_factory.mktemp("cache"))}
    program = [sys.executable, "-W", "ignore", "-m", "tests.slow.tensorrt_programs.families"]
    done = subprocess.run(program, env={**os.environ, **place}, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return {(row["family"], row["precision"]): row for row in rows}


def test_every_family_builds_in_every_precision(engines: dict[tuple[str, str], dict[str, Any]]) -> None:
    assert list(engines) == [(family, precision) for family in FAMILIES for precision in PRECISIONS]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_layer_with_weights_executes_in_its_precision(
    engines: dict[tuple[str, str], dict[str, Any]], family: str
) -> None:
    for precision in PRECISIONS:
        row = engines[family, precision]
        assert len(row["unseen"]) == UNSEEN.get((family, precision), 0), row
        assert row["weighted"] == len(row["layers"]) + len(row["unseen"]) > 4
        half = HALF.get(family, 0) * (precision == "int8")
        assert [other for other in row["layers"].values() if other != precision] == ["int8→fp16"] * half, row
    row = engines[family, "int8"]
    assert len(row["not_int8"]) == HALF.get(family, 0) and row["int8"] > 4


@pytest.mark.parametrize("family", FAMILIES)
def test_half_precision_engines_are_smaller(engines: dict[tuple[str, str], dict[str, Any]], family: str) -> None:
    assert engines[family, "fp16"]["bytes"] < engines[family, "float32"]["bytes"]
