"""Runners against numpy, one batch size at every call, only the hashed bytes, and one line for every fault."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from edge import open_runner
from edge.core import artifact
from edge.core.errors import CheckFailed, CompressError, MachineFault
from edge.core.machine import usable_cores
from edge.runtimes.onnxruntime.runner import OnnxRunner
from edge.runtimes.runner import at_batch_sizes, executable
from tests.edge import linear
from tests.edge.stages import exported

RNG = np.random.default_rng(1)
WEIGHTS = RNG.normal(size=(3, 16))
IMAGES = RNG.integers(0, 256, (11, *linear.SHAPE), dtype=np.uint8)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return linear.linear(tmp_path / "m.onnx", WEIGHTS)


@pytest.mark.parametrize("n", [0, 1, 4, 5, 11])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_logits_against_numpy(file: Path, n: int, dtype: Any) -> None:
    images = IMAGES[:n] if dtype == np.uint8 else (IMAGES[:n] / 255).astype(np.float32)
    with open_runner(file, batch_size=4) as runner:
        got = runner.infer(images)
        assert (runner.input_shape, runner.classes, runner.batch_size) == (linear.SHAPE, 3, 4)
    assert got.dtype == np.float32 and got.shape == (n, 3)
    np.testing.assert_allclose(got, linear.logits(WEIGHTS, images), atol=1e-5)


def test_a_grey_level_is_its_float32_quotient(file: Path) -> None:
    levels = np.arange(256, dtype=np.uint8).repeat(16).reshape(-1, *linear.SHAPE)
    exact = np.array([np.float32(k) / np.float32(255) for k in range(256)], np.float32)
    with open_runner(file) as runner:
        same = runner.infer(exact.repeat(16).reshape(levels.shape))
        np.testing.assert_array_equal(runner.infer(levels), same)


def test_the_runtime_sees_one_batch_size_and_zeros_as_padding(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[np.ndarray] = []
    call = OnnxRunner._call

    def watched(self: OnnxRunner, batch: np.ndarray) -> np.ndarray:
        seen.append(batch.copy())
        return call(self, batch)

    monkeypatch.setattr(OnnxRunner, "_call", watched)
    with open_runner(file, batch_size=4) as runner:
        runner.infer(IMAGES)
    assert [batch.shape for batch in seen] == [(4, *linear.SHAPE)] * 3
    assert all(batch.dtype == np.float32 for batch in seen)
    np.testing.assert_array_equal(np.concatenate(seen)[:11], IMAGES.astype(np.float32) / np.float32(255))
    assert not seen[-1][3:].any()


def test_images_that_are_not_contiguous(file: Path) -> None:
    floats = (IMAGES / 255).astype(np.float32)
    turned = np.ascontiguousarray(floats.transpose(0, 1, 3, 2)).transpose(0, 1, 3, 2)
    with open_runner(file) as runner:
        np.testing.assert_array_equal(runner.infer(turned), runner.infer(floats))


def test_a_fixed_batch_is_used_whatever_is_asked_for(tmp_path: Path) -> None:
    with open_runner(linear.linear(tmp_path / "m.onnx", WEIGHTS, batch=3), batch_size=64) as runner:
        assert runner.batch_size == 3
        np.testing.assert_allclose(runner.infer(IMAGES), linear.logits(WEIGHTS, IMAGES), atol=1e-5)


def test_other_sizes_are_left_out_where_the_file_takes_none_and_not_where_memory_ends(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_runner(file, batch_size=4) as runner:
        with at_batch_sizes(runner, (1, 4)) as by_size:
            assert list(by_size) == [1, 4] and by_size[4] == runner.infer
        for fault in (MachineFault("no memory"), CompressError("cannot be opened")):

            def again(size: int, fault: CompressError = fault) -> None:
                raise fault from (MemoryError() if not isinstance(fault, MachineFault) else None)

            monkeypatch.setattr(runner, "again", again)
            with pytest.raises(MachineFault, match="memory"), at_batch_sizes(runner, (1,)):
                pass

        def keeps_its_size(size: int) -> None:
            raise NotImplementedError

        monkeypatch.setattr(runner, "again", keeps_its_size)
        with at_batch_sizes(runner, (1, 4)) as by_size:
            assert list(by_size) == [4]


@pytest.mark.parametrize(("asked", "told"), [(0, usable_cores()), (1, 1), (3, 3)])
def test_the_threads_recorded_are_those_that_run(file: Path, asked: int, told: int) -> None:
    with open_runner(file, threads=asked) as runner:
        found = runner.describe()
        assert runner._session.get_session_options().intra_op_num_threads == told
        assert runner.open_ms > 0 and runner.sha256 == artifact.file_sha256(file)
    assert found["threads"] == told and found["name"] == "onnxruntime" and found["provider"] == "CPUExecutionProvider"


def test_telemetry_is_switched_off(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    calls = []
    monkeypatch.setattr(onnxruntime, "disable_telemetry_events", lambda: calls.append(1))
    open_runner(file).close()
    assert calls


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([1, 2], "images of type list; give a numpy array"),
        (IMAGES.astype(np.float64), "images of type float64"),
        (IMAGES[0], r"images of shape \(1, 4, 4\); this model takes \(N, 1, 4, 4\)"),
        (IMAGES.reshape(-1, 1, 2, 8), r"images of shape \(11, 1, 2, 8\)"),
        (np.full((2, *linear.SHAPE), np.nan, np.float32), "2 of 2 images hold NaN"),
        (np.full((2, *linear.SHAPE), np.inf, np.float32), "2 of 2 images hold NaN or infinity"),
    ],
)
def test_images_that_are_refused(file: Path, images: Any, message: str) -> None:
    with open_runner(file) as runner, pytest.raises(CompressError, match=message):
        runner.infer(images)


def test_logits_that_are_not_finite_are_counted(tmp_path: Path) -> None:
    bad = int((linear.logits(WEIGHTS, IMAGES) < 0).any(1).sum())
    assert bad > 0
    runner = open_runner(linear.undefined(tmp_path / "m.onnx", WEIGHTS), batch_size=2)
    with pytest.raises(CheckFailed, match=f"not finite for {bad} of 11 images"):
        runner.infer(IMAGES)


def test_a_graph_that_fails_when_run_is_one_line_and_silent(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    runner = open_runner(linear.of_two_images(tmp_path / "m.onnx", WEIGHTS), batch_size=4)
    with pytest.raises(CompressError, match=r"m\.onnx: fails on 4 images") as fault:
        runner.infer(IMAGES)
    assert "\n" not in str(fault.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["initializer", "constant"])
def test_weights_outside_the_hash_are_refused(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = linear.outside(tmp_path / "m.onnx", WEIGHTS)
    if kind == "constant":
        model = onnx.load(path, load_external_data=False)
        (weights,) = [entry for entry in model.graph.initializer if entry.name == "w"]
        model.graph.node.insert(0, helper.make_node("Constant", [], ["w"], value=weights))
        model.graph.initializer.remove(weights)
        path.write_bytes(model.SerializeToString())
    assert (tmp_path / "w.bin").is_file()
    monkeypatch.chdir(tmp_path)  # where ONNX Runtime would look for them
    with pytest.raises(CompressError, match=r"keeps weights in another file.*save it as one"):
        open_runner(path)


def _graph(path: Path, **more: Any) -> Path:
    flat = helper.make_node("Flatten", ["x"], ["flat"])
    product = helper.make_node("MatMul", ["flat", "w"], ["y"])
    return linear.save(path, [flat, product], {"w": WEIGHTS.T.astype(np.float32)}, **more)


def test_graphs_that_are_no_classifier(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    _graph(path, inputs=[("x", ["N", 1, "H", 4])])
    with pytest.raises(CompressError, match=r"\(N, 1, H, 4\), whose C, H and W are not fixed"):
        open_runner(path)
    _graph(path, inputs=[("x", ["N", *linear.SHAPE]), ("z", ["N", 1])])
    with pytest.raises(CompressError, match="has 2 inputs"):
        open_runner(path)
    _graph(path, outputs=[("y", ["N", 3]), ("flat", ["N", 16])])
    with pytest.raises(CompressError, match="has 2 outputs"):
        open_runner(path)
    _graph(path, inputs=[("x", ["N", 16])])
    with pytest.raises(CompressError, match=r"a classifier takes float32 images \(N,C,H,W\)"):
        open_runner(path)
    _graph(path, outputs=[("y", ["N", "K"])])
    with open_runner(path) as runner:
        assert runner.classes == 3  # the runtime infers what the file leaves open
    path.write_bytes(b"no graph at all")
    with pytest.raises(CompressError, match="is no ONNX file, or not the whole of one") as fault:
        open_runner(path)
    assert "\n" not in str(fault.value)


def test_places_that_are_no_classifier(tmp_path: Path, file: Path) -> None:
    with pytest.raises(CompressError, match=r"none\.onnx: cannot be read"):
        open_runner(tmp_path / "none.onnx")
    (tmp_path / "w.txt").write_text("x")
    with pytest.raises(CompressError, match=r"w\.txt: no \.onnx file; give the folder of an exported stage"):
        open_runner(tmp_path / "w.txt")
    with pytest.raises(CompressError, match=r"no manifest\.json"):
        open_runner(tmp_path)
    for wrong in ({"batch_size": 0}, {"batch_size": -1}, {"threads": -1}):
        with pytest.raises(CompressError, match="at least 1 image and 0 threads"):
            open_runner(file, **wrong)  # type: ignore[arg-type]


def test_an_exported_folder_is_opened_and_another_target_refused(tmp_path: Path, file: Path) -> None:
    stage = exported(tmp_path / "e", file.read_bytes())
    with open_runner(stage.path) as runner:
        np.testing.assert_allclose(runner.infer(IMAGES), linear.logits(WEIGHTS, IMAGES), atol=1e-5)
    other = exported(tmp_path / "t", file.read_bytes(), target="tflite")
    with pytest.raises(CompressError, match="exported for tflite; what can be opened here: onnx, tensorrt, "):
        open_runner(other.path)
    with pytest.raises(CompressError, match=r"exported for tflite; .*; install the package that adds it$"):
        executable(other, "cpu")  # and not that the device were the wrong one


@pytest.mark.skipif(Path("/proc/driver/nvidia").exists(), reason="there is a GPU here")
def test_what_needs_a_gpu_says_so_where_there_is_none(tmp_path: Path, file: Path) -> None:
    engine = exported(tmp_path / "e", file.read_bytes(), target="tensorrt")
    with pytest.raises(CompressError, match=r"no usable NVIDIA GPU here \(.*\); run it where one is, with its driver"):
        open_runner(engine.path)
    with pytest.raises(
        CompressError, match="has no CUDAExecutionProvider; pip uninstall onnxruntime, then pip install"
    ):
        open_runner(file, device="cuda")
    with open_runner(file, device="jetson") as runner:
        assert runner.describe()["provider"] == "CPUExecutionProvider"


def test_a_flipped_bit_is_never_executed(tmp_path: Path, file: Path) -> None:
    stage = exported(tmp_path / "e", file.read_bytes())
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    stage.file("model.onnx").write_bytes(content)
    with pytest.raises(CompressError, match=r"model\.onnx has sha256"):
        open_runner(stage.path)


def test_a_file_changed_after_its_check_is_not_executed(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = exported(tmp_path / "e", file.read_bytes())
    check = artifact.read

    def slow(folder: Any, kinds: Any = ()) -> artifact.Stage:
        found = check(folder, kinds)
        linear.linear(stage.file("model.onnx"), -WEIGHTS)
        return found

    monkeypatch.setattr(artifact, "read", slow)
    with pytest.raises(CompressError, match=r"model\.onnx has sha256 .* the manifest says"):
        open_runner(stage.path)


def test_an_unreadable_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").symlink_to(tmp_path / "gone")
    with pytest.raises(CompressError, match=r"m\.onnx: cannot be read"):
        open_runner(tmp_path / "m.onnx")
