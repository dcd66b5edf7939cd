"""libcudart by ctypes: signatures, errors and lifetimes against a stand-in; the search for the real one for real."""

import ctypes
import itertools
from pathlib import Path

import numpy as np
import pytest

from edge.core.errors import CompressError
from edge.runtimes.tensorrt import cuda as module
from edge.runtimes.tensorrt.cuda import SIGNATURES, Cuda


def test_the_device_is_read(cudart: ctypes.CDLL) -> None:
    device = Cuda(cudart).device()
    assert (device.name, device.sm, device.integrated) == ("Orin", "8.7", True)
    assert (device.total_bytes, device.free_bytes) == (8 << 30, 5 << 30)
    assert (device.driver, device.runtime) == ("13.2", "12.6")
    assert "free_bytes" not in device.about()  # what changes by the minute decides no engine


def test_bytes_go_in_and_come_out(cudart: ctypes.CDLL) -> None:
    cuda = Cuda(cudart)
    sent, there = cuda.pinned((2, 3))
    back, here = cuda.pinned((2, 3))
    sent[...] = np.arange(6, dtype=np.float32).reshape(2, 3)
    back[...] = 0
    memory, stream = cuda.allocate(sent.nbytes), cuda.stream()
    cuda.copy_in(memory, there, sent.nbytes, stream)
    cuda.copy_out(here, memory, sent.nbytes, stream)
    cuda.synchronize(stream)
    np.testing.assert_array_equal(back, sent)
    assert cudart.stub_live() >= 4
    cuda.close()
    cuda.close()


def test_events_measure_what_lies_between_them(cudart: ctypes.CDLL) -> None:
    cuda = Cuda(cudart)
    stream, events = cuda.stream(), [cuda.event() for _ in range(3)]
    for event in events:
        cuda.record(event, stream)
    parts = [cuda.elapsed_ms(start, end) for start, end in itertools.pairwise(events)]
    assert all(part >= 0 for part in parts)
    assert sum(parts) == pytest.approx(cuda.elapsed_ms(events[0], events[2]), abs=1e-3)
    cuda.close()


def test_a_captured_call_is_launched_and_the_graph_freed(cudart: ctypes.CDLL) -> None:
    cuda = Cuda(cudart)
    stream, captured = cuda.stream(), []
    graph = cuda.capture(lambda: captured.append(cudart.stub_capturing()), stream)
    assert captured == [1] and not cudart.stub_capturing()
    cuda.launch(graph, stream)
    cuda.close()


def test_a_capture_that_fails_ends_the_capture(cudart: ctypes.CDLL) -> None:
    cuda = Cuda(cudart)

    def fails() -> None:
        raise CompressError("no")

    with pytest.raises(CompressError, match="no"):
        cuda.capture(fails, cuda.stream())
    assert not cudart.stub_capturing()
    cuda.close()


@pytest.mark.parametrize("name", [name for name in SIGNATURES if name not in ("cudaGetDeviceCount", "cudaSetDevice")])
def test_every_failing_call_is_one_line_with_its_name(cudart: ctypes.CDLL, name: str) -> None:
    """Whatever fails, and after it nothing stays allocated that could be freed."""
    cuda = Cuda(cudart)
    cudart.stub_fail(name.encode(), 719)
    with pytest.raises(CompressError, match=rf"CUDA failed in {name}: some error \(719\)") as fault:
        _everything(cuda)
    assert "\n" not in str(fault.value)
    cudart.stub_reset()
    cuda.close()
    if "Destroy" in name or "Free" in name:  # what did not go is the one thing that the fault tells of
        assert cudart.stub_live() == 1
        cudart.stub_forget()


@pytest.mark.parametrize(
    ("code", "line"),
    [
        (
            35,
            r"no usable NVIDIA GPU here \(cudaGetDeviceCount: CUDA driver version is insufficient \(35\)\); run",
        ),
        (100, "no usable NVIDIA GPU here .*100.*; run it where one is, with its driver installed"),
        (2, "the GPU's memory does not suffice .*; end other programs, or take a smaller batch"),
    ],
)
def test_no_driver_no_device_and_no_memory_have_lines_of_their_own(cudart: ctypes.CDLL, code: int, line: str) -> None:
    cudart.stub_fail(b"cudaGetDeviceCount", code)
    with pytest.raises(CompressError, match=line):
        Cuda(cudart)


def test_a_library_too_old_is_named(cudart: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SIGNATURES, "cudaOfTheFuture", ())
    with pytest.raises(CompressError, match="libcudart has no cudaOfTheFuture; CUDA 12 or newer is needed"):
        Cuda(cudart)


def test_it_is_found_in_pip_packages_and_in_the_toolkit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel, toolkit = tmp_path / "site" / module.WHEELS[0], tmp_path / module.TOOLKITS[0]
    for folder, name in ((wheel, "libcudart.so.12"), (toolkit, "libcudart.so.13")):
        folder.mkdir(parents=True)
        (folder / name).touch()
    monkeypatch.setattr(module.sys, "path", [str(tmp_path / "site")])
    found = list(module._places(tmp_path))
    assert found[-2:] == [wheel / "libcudart.so.12", toolkit / "libcudart.so.13"]


def test_absence_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SONAMES", ("libcudart.so.0",))
    monkeypatch.setattr(module, "_places", lambda: iter(()))
    with pytest.raises(CompressError, match=r"libcudart\.so\.0 not found; pip install nvidia-cuda-runtime"):
        Cuda()
    assert module.cuda_device() is None


def _everything(cuda: Cuda) -> None:
    cuda.device()
    host, address = cuda.pinned((4,))
    memory, stream = cuda.allocate(16), cuda.stream()
    start, end = cuda.event(), cuda.event()
    cuda.record(start, stream)
    cuda.copy_in(memory, address, host.nbytes, stream)
    cuda.record(end, stream)
    cuda.synchronize(stream)
    cuda.elapsed_ms(start, end)
    cuda.launch(cuda.capture(lambda: None, stream), stream)
    cuda.close()
