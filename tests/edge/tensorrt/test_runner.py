"""The TensorRT runner over the stand-ins: batches, copies, graph, timing, lifetimes. Executing needs a GPU."""

import ctypes
import platform
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edge.core import artifact
from edge.core.errors import CompressError
from edge.runtimes.tensorrt import recipe
from edge.runtimes.tensorrt.cuda import Cuda
from edge.runtimes.tensorrt.engines import BuiltEngine
from edge.runtimes.tensorrt.runner import TensorRTRunner, _context, _opened, batch_within
from tests.edge.tensorrt import fake
from tests.edge.tensorrt.parts import ORIN, recipe_of

IMAGES = np.random.default_rng(0).integers(0, 256, (70, *fake.SHAPE), dtype=np.uint8)


REPLAY = ctypes.CFUNCTYPE(None)


def opened(
    cudart: ctypes.CDLL, batch_size: int, batch: tuple[int, int, int] = (1, 1, 64), **more: object
) -> TensorRTRunner:
    library = fake.library()
    content = fake.plan(batch=batch)
    about = recipe.sidecar_of(content, b"onnx", recipe_of("tensorrt", batch=batch), library, ORIN)
    fake.ENQUEUED.clear()
    engine = BuiltEngine(content, about, here=False)
    runner = TensorRTRunner(engine, library, Cuda(cudart), where="e", batch_size=batch_size, **more)  # type: ignore[arg-type]
    runner.replay = REPLAY(runner._context.compute)  # type: ignore[attr-defined]
    cudart.stub_replay(runner.replay)  # type: ignore[attr-defined]
    return runner


@pytest.mark.parametrize("batch_size", [1, 8, 64])
def test_any_number_of_images_gives_the_engines_logits(cudart: ctypes.CDLL, batch_size: int) -> None:
    with opened(cudart, batch_size) as runner:
        assert (runner.input_shape, runner.classes, runner.batch_size) == (fake.SHAPE, fake.CLASSES, batch_size)
        want = fake.logits(IMAGES.astype(np.float32) / 255)
        np.testing.assert_allclose(runner.infer(IMAGES), want, rtol=1e-5, atol=1e-5)
        assert runner.infer(IMAGES[:0]).shape == (0, fake.CLASSES)
        np.testing.assert_allclose(runner.infer(IMAGES[:3].astype(np.float32) / 255), want[:3], rtol=1e-5, atol=1e-5)
    assert set(fake.ENQUEUED) == {batch_size}  # padded: one shape, set once


def test_a_batch_outside_the_engines_range_is_brought_into_it_and_said(
    cudart: ctypes.CDLL, capsys: pytest.CaptureFixture[str]
) -> None:
    with opened(cudart, 64, (2, 4, 8)) as runner:
        assert runner.batch_size == 8
    assert capsys.readouterr().err == "e: built for 2 to 8 images a call, 64 asked for; taking 8\n"
    assert batch_within(1, 2, 8, "e") == 2 and batch_within(5, 2, 8, "e") == 5


def test_the_captured_graph_is_launched_and_without_one_it_is_enqueued(cudart: ctypes.CDLL) -> None:
    with opened(cudart, 8, cuda_graph=False) as runner:
        before = len(fake.ENQUEUED)
        runner.infer(IMAGES[:8])
        assert len(fake.ENQUEUED) == before + 1 and not runner.describe()["cuda_graph"]
    with opened(cudart, 8) as runner:
        before, launched = len(fake.ENQUEUED), cudart.stub_calls(b"cudaGraphLaunch")
        runner.infer(IMAGES[:8])
        assert len(fake.ENQUEUED) == before and cudart.stub_calls(b"cudaGraphLaunch") == launched + 1
        assert runner.describe()["cuda_graph"]


def test_where_no_graph_can_be_captured_the_call_is_enqueued_and_that_is_said(
    cudart: ctypes.CDLL, capsys: pytest.CaptureFixture[str]
) -> None:
    cudart.stub_fail(b"cudaGraphInstantiateWithFlags", 801)
    with opened(cudart, 8) as runner:
        np.testing.assert_allclose(
            runner.infer(IMAGES[:8]), fake.logits(IMAGES[:8].astype(np.float32) / 255), rtol=1e-5
        )
        assert not runner.describe()["cuda_graph"]
    assert "cannot be captured as a CUDA graph" in capsys.readouterr().err


def test_a_timed_call_gives_the_same_logits_and_its_three_parts(cudart: ctypes.CDLL) -> None:
    batch = IMAGES[:8].astype(np.float32) / np.float32(255)
    with opened(cudart, 8, cuda_graph=False) as runner:
        logits, parts = runner.timed_call(batch)
        np.testing.assert_array_equal(logits, runner.infer(batch))
        assert list(parts) == ["h2d_ms", "compute_ms", "d2h_ms"] and min(parts.values()) >= 0
        again, _ = runner.timed_call(batch * 0)
        assert not np.array_equal(logits, again)  # a copy, not the buffer of the next call


def test_it_says_what_executes(cudart: ctypes.CDLL) -> None:
    with opened(cudart, 8) as runner:
        said = runner.describe()
        assert {key: said[key] for key in ("name", "version", "provider", "sm")} == {
            "name": "tensorrt",
            "version": "10.3.0",
            "provider": "Orin",
            "sm": "8.7",
        }
        assert said["device_memory_bytes"] == 4096
        assert runner.sha256 == artifact.bytes_sha256(fake.plan()) and runner.file == "engine.plan"
        assert runner.size == len(fake.plan()) and runner.kept() == {}
        assert runner.origin() == {"built": _built(), "here": False}


def test_what_was_allocated_goes_when_the_runner_cannot_be_made(cudart: ctypes.CDLL) -> None:
    library, content = fake.library("10.4.0"), fake.plan("10.3.0")
    about = recipe.sidecar_of(content, b"onnx", recipe_of("tensorrt"), library, ORIN)
    with pytest.raises(CompressError, match=r"e: TensorRT 10.4.0 does not load it .*; built for Orin \(SM 8.7\)"):
        _opened(BuiltEngine(content, about, here=False), library, Cuda(cudart), "e", 8)
    cudart.stub_fail(b"cudaMalloc", 2)
    with pytest.raises(CompressError, match="the GPU's memory does not suffice"):
        _opened(BuiltEngine(fake.plan(), about, here=False), fake.library(), Cuda(cudart), "e", 8)


def test_kernels_are_final_at_the_first_call_where_the_library_would_swap_them() -> None:
    """TensorRT-RTX answers with a fallback until better kernels are compiled; logits would change under way."""
    lazy, eager = object(), object()
    settings = SimpleNamespace(dynamic_shapes_kernel_specialization_strategy=lazy)
    given: list[Any] = []
    engine = SimpleNamespace(
        create_runtime_config=lambda: settings, create_execution_context=lambda *configured: given.extend(configured)
    )
    swapping = fake.library(
        IRuntimeConfig=SimpleNamespace(dynamic_shapes_kernel_specialization_strategy=None),
        DynamicShapesKernelSpecializationStrategy=SimpleNamespace(EAGER=eager),
    )
    _context(engine, fake.library())
    assert given == []
    _context(engine, swapping)
    assert given == [settings] and settings.dynamic_shapes_kernel_specialization_strategy is eager


def _built() -> str:
    return f"built for Orin (SM 8.7) by TensorRT 10.3.0 on linux {platform.machine()}"
