"""The board's test of itself: a network that numpy and a runtime compute alike, and rows that fail when they do not."""

import json
import os
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from edge import open_runner
from edge.board import selftesting
from export import reference_network

NETWORK = resources.files("edge.board").joinpath(selftesting.NETWORK)


def test_the_committed_file_is_what_the_script_writes() -> None:
    assert NETWORK.read_bytes() == reference_network.reference_network(), (
        "python -m export.reference_network edge/board/network.onnx"
    )


def test_numpy_computes_what_a_naive_loop_computes() -> None:
    x = selftesting.reference_images(2)
    kernel, scale, bias = selftesting.reference_weights("first")
    image = np.clip(np.rint(x / 255 * 127), -128, 127)
    got = selftesting._convolution(image / 127, "first")
    for k, i, j in ((0, 0, 0), (3, 4, 7), (7, 7, 0)):
        total = float(bias[k])
        for c in range(3):
            for u in range(3):
                for v in range(3):
                    row, column = i + u - 1, j + v - 1
                    if 0 <= row < 8 and 0 <= column < 8:
                        total += float(kernel[k, c, u, v]) * float(scale[k]) * image[1, c, row, column] / 127
        assert got[1, k, i, j] == pytest.approx(total, abs=1e-9)


def test_the_runtime_computes_what_numpy_computes(tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    path.write_bytes(NETWORK.read_bytes())
    x, want = selftesting.reference_images(), selftesting.reference_logits(selftesting.reference_images())
    with open_runner(path, batch_size=4) as runner:
        assert np.abs(runner.infer(x) - want).max() <= selftesting.TOLERANCE * np.abs(want).max()
    assert len(set(want.argmax(1))) >= 4, "the images tell the classes apart"


def test_tensorrts_parser_takes_it() -> None:
    from edge.runtimes.tensorrt import library
    from edge.runtimes.tensorrt.build import build_engine
    from edge.runtimes.tensorrt.recipe import Recipe

    if not os.environ.get("CI"):
        pytest.importorskip("tensorrt_rtx", reason="pip install tensorrt-rtx-cu13")
    how = Recipe("tensorrt-rtx", "int8", (1, 4, 8), None, 0, "none", False, None, ("8.6",), 1)
    built = build_engine(NETWORK.read_bytes(), how, library.load_library("tensorrt-rtx"), where="reference")
    assert len(built.engine) > 1000


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftesting, "WATCHED_S", 0.4)
    monkeypatch.setattr(selftesting, "find_spec", lambda name: None)  # no TensorRT: what runs here anyway


def test_a_machine_that_is_right_passes(brief: None) -> None:
    found = selftesting.run_selftest()
    assert found["passed"], found
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert [row["name"] for row in found["checks"]] == [
        "golden logits at batch 4",
        "the same answer twice",
        "padding",
        "uint8 and float32 alike",
        "CUDA graph",
        "golden logits at batch 8",
        "evidence",
        "sampling",
    ]
    assert found["latency"]["p50_ms"] > 0 and found["machine"]["kind"] in ("cpu", "gpu", "jetson")


def test_a_machine_that_computes_something_else_fails(brief: None, monkeypatch: pytest.MonkeyPatch) -> None:
    right = selftesting.reference_logits
    monkeypatch.setattr(selftesting, "reference_logits", lambda x: right(x) * 1.1)
    rows = {row["name"]: row["passed"] for row in selftesting.run_selftest()["checks"]}
    assert rows["golden logits at batch 4"] is False and rows["padding"] is True


def test_a_machine_without_a_runtime_says_so(brief: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    found = selftesting.run_selftest()
    assert not found["passed"]
    (row,) = [row for row in found["checks"] if row["passed"] is False]
    assert row["name"] == "runtime" and "onnxruntime" in row["found"]
