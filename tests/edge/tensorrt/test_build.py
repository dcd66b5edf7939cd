"""Engines built for real by TensorRT-RTX, which needs no GPU for it, and everything that a build refuses."""

import os
import signal
import threading
import time

import pytest

from edge.core.errors import CompressError
from edge.runtimes.tensorrt import build, preflight
from edge.runtimes.tensorrt import build as building
from edge.runtimes.tensorrt.build import build_engine
from edge.runtimes.tensorrt.library import Library
from tests.edge.tensorrt import parts
from tests.edge.tensorrt.graphs import CONVS, graph, unsupported
from tests.edge.tensorrt.parts import recipe_of

SM = ("8.6",)


@pytest.fixture(scope="module")
def rtx() -> Library:
    return parts.rtx()


@pytest.mark.parametrize("kind", ["float32", "fp16", "int8"])
def test_every_precision_builds_and_the_layers_execute_in_it(rtx: Library, kind: str) -> None:
    int8 = CONVS if kind == "int8" else ()
    how = recipe_of(precision=kind, compute_capabilities=SM, int8=int8)
    made = build_engine(graph(kind), how, rtx)
    assert preflight.written_by(made.engine, "e") == rtx.version
    assert made.layers is not None
    assert made.layers["weighted"] == dict.fromkeys(CONVS, kind) and made.layers["precisions"] == {kind: len(CONVS)}
    assert made.layers["not_int8"] == [] and made.layers["unseen"] == []


def test_a_layer_that_should_be_int8_and_is_not_is_named(rtx: Library) -> None:
    made = build_engine(graph("fp16"), recipe_of(precision="int8", compute_capabilities=SM), rtx)
    assert made.layers is not None and made.layers["not_int8"] == list(CONVS)
    (_, said) = building.layers.layer_lines(made.layers, CONVS)
    assert said == "3 of 3 nodes meant for INT8 execute otherwise: conv1 (fp16), conv2 (fp16), fc (fp16)"


def test_one_capability_builds_the_same_bytes_again_and_another_one_others(rtx: Library) -> None:
    content = graph("float32")
    one, again, other = (
        build_engine(content, recipe_of(compute_capabilities=names), rtx).engine for names in (SM, SM, ("8.9",))
    )
    assert one == again != other


def test_the_batch_range_is_in_the_engine(rtx: Library) -> None:
    build_engine(graph("float32"), recipe_of(batch=(2, 4, 8), compute_capabilities=SM), rtx)
    assert "MinShape: [2,3,8,8], OptShape: [4,3,8,8], MaxShape: [8,3,8,8]" in rtx.journal.listing


@pytest.mark.parametrize(
    ("content", "changes", "line"),
    [
        (
            unsupported(),
            {},
            "cannot take node strange \\(NoSuchOperator\\), of layer stem: .*; use a network without it",
        ),
        (b"no graph at all", {}, "cannot take the graph: .*|cannot read it"),
        (graph("float32", batch=4), {}, "takes 4 images a call, always; give --batch 4:4:4"),
        (
            graph("float32"),
            {"compute_capabilities": ("9.9",)},
            "compute capability 9.9: TensorRT-RTX .* knows 7.5, 8.0",
        ),
        (graph("float32"), {"compute_capabilities": ("7.5",)}, "built no engine: .*Turing \\(SM75\\)"),
        (graph("float32"), {"hardware_compatibility": "ampere+"}, "that --compute-capability names; use that"),
        (graph("float32"), {"version_compatible": True}, "version compatible: not of tensorrt-rtx; leave it out"),
        (graph("float32"), {"dla": 0}, "dla 0: desktop GPUs have none; use --target tensorrt"),
    ],
    ids=["operator", "no-onnx", "fixed-batch", "capability", "turing", "level", "versions", "dla"],
)
def test_what_cannot_be_built_is_one_line(rtx: Library, content: bytes, changes: dict[str, object], line: str) -> None:
    with pytest.raises(CompressError, match=line) as fault:
        build_engine(content, recipe_of(**changes), rtx, origin={"strange": "stem"})
    assert "\n" not in str(fault.value)


def test_an_int32_bias_is_refused_by_the_parser_not_by_a_crash(rtx: Library) -> None:
    """What ONNX Runtime wants of a bias, TensorRT does not take: their graphs differ."""
    import onnx
    from onnx import helper, numpy_helper

    proto = onnx.load_model_from_string(graph("int8"))
    bias = next(entry for entry in proto.graph.initializer if entry.name == "conv1.bias")
    whole = numpy_helper.to_array(bias).astype("int32")
    proto.graph.initializer.remove(bias)
    proto.graph.initializer.append(numpy_helper.from_array(whole, "bias_int32"))
    proto.graph.node.insert(0, helper.make_node("DequantizeLinear", ["bias_int32", "image_scale"], ["conv1.bias"], "b"))
    with pytest.raises(CompressError, match=r"TensorRT-RTX .* cannot take node|built no engine"):
        build_engine(proto.SerializeToString(), recipe_of(compute_capabilities=SM), rtx)


def test_ctrl_c_ends_a_build_at_its_next_step(rtx: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    step = build.Phases.step

    def slow(self: build.Phases, phase: str, number: int) -> bool:
        time.sleep(0.02)  # long enough for the signal to arrive in the middle
        return step(self, phase, number)

    monkeypatch.setattr(build.Phases, "step", slow)
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell's background job runs
    try:
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            for _ in range(20):
                build_engine(graph("float32"), recipe_of(compute_capabilities=SM), rtx)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, inherited)


def test_a_build_ends_before_the_system_runs_out_of_memory(rtx: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build.machine, "memory_available", lambda: build.LEAST_BYTES - 1)
    with pytest.raises(CompressError, match="no engine was built, memory ran out; end other programs, give a smaller"):
        build_engine(graph("float32"), recipe_of(compute_capabilities=SM), rtx)


def test_without_a_limit_the_workspace_is_a_share_of_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    assert building._workspace(recipe_of(workspace_mib=64), parts.ORIN) == 64 << 20
    assert building._workspace(recipe_of(), None) is None
    assert building._workspace(recipe_of(), parts.RTX_3090) == 10 << 30
    monkeypatch.setattr(building.machine, "memory_available", lambda: 1 << 30)
    assert building._workspace(recipe_of(), parts.ORIN) == 1 << 29  # a board's GPU has the processor's memory
